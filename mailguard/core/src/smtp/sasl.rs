//! The server's side of SASL: PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login-00), within
//! AUTH (RFC 4954 §4). Whether name and password are right is asked elsewhere.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::credentials::Credentials;

/// Longest name or password, octets (RFC 4616 §2).
pub const MAX_CREDENTIAL_OCTETS: usize = 255;

/// An exchange under way.
#[derive(Debug)]
pub enum Exchange {
    /// PLAIN: its one message is due.
    Plain,
    /// LOGIN: the name is due.
    LoginUser,
    /// LOGIN: the password is due.
    LoginPassword {
        /// The name.
        user: String,
    },
}

/// What a response leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// This challenge is sent, base64 already, and another response is due.
    Challenge(&'static str),
    /// The credentials are complete.
    Complete(Credentials),
    /// The client cancelled the exchange: `*`.
    Cancelled,
    /// The authorization identity isn't the authentication identity (RFC 4616 §2): refused.
    ForAnother {
        /// Who it says it is.
        user: String,
    },
    /// No base64, or not what the mechanism wants.
    Malformed,
}

impl Exchange {
    /// The exchange of a mechanism, by its name in upper case, if there is one.
    pub fn begin(mechanism: &str) -> Option<Self> {
        match mechanism {
            "PLAIN" => Some(Exchange::Plain),
            "LOGIN" => Some(Exchange::LoginUser),
            _ => None,
        }
    }

    /// What is sent where the client gave no initial response, base64.
    pub fn first_challenge(&self) -> &'static str {
        match self {
            Exchange::Plain => "",
            // "Username:", "Password:": there are clients that look for the words.
            Exchange::LoginUser => "VXNlcm5hbWU6",
            Exchange::LoginPassword { .. } => PASSWORD,
        }
    }

    /// Takes a response as it stands on the wire, its CRLF removed; "=" is an empty initial one.
    pub fn respond(&mut self, response: &[u8]) -> Step {
        if response == b"*" {
            return Step::Cancelled;
        }
        let encoded = if response == b"=" { b"" } else { response };
        let Some(text) = STANDARD.decode(encoded).ok().and_then(|octets| String::from_utf8(octets).ok())
        else {
            return Step::Malformed;
        };
        match self {
            Exchange::Plain => plain(&text),
            Exchange::LoginUser if is_credential(&text) => {
                *self = Exchange::LoginPassword { user: text };
                Step::Challenge(PASSWORD)
            }
            Exchange::LoginPassword { user } if is_credential(&text) => {
                Step::Complete(Credentials { user: std::mem::take(user), password: text })
            }
            Exchange::LoginUser | Exchange::LoginPassword { .. } => Step::Malformed,
        }
    }
}

const PASSWORD: &str = "UGFzc3dvcmQ6";

/// `[authzid] NUL authcid NUL passwd`. An authzid other than the authcid is refused.
fn plain(message: &str) -> Step {
    let mut parts = message.split('\0');
    let (acts_for, user, password) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(acts_for), Some(user), Some(password), None) => (acts_for, user, password),
        _ => return Step::Malformed,
    };
    if !is_credential(user) || !is_credential(password) {
        Step::Malformed
    } else if acts_for.is_empty() || acts_for == user {
        Step::Complete(Credentials { user: user.to_owned(), password: password.to_owned() })
    } else {
        Step::ForAnother { user: user.to_owned() }
    }
}

fn is_credential(text: &str) -> bool {
    (1..=MAX_CREDENTIAL_OCTETS).contains(&text.len()) && !text.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The responses in clear; what comes of them.
    fn check(mechanism: &str, responses: &[&str], expect: &str) {
        let mut exchange = Exchange::begin(mechanism).unwrap();
        let steps =
            responses.iter().map(|response| match exchange.respond(STANDARD.encode(response).as_bytes()) {
                Step::Challenge(challenge) => String::from_utf8(STANDARD.decode(challenge).unwrap()).unwrap(),
                Step::Complete(Credentials { user, password }) => format!("{user} {password}"),
                other => format!("{other:?}"),
            });
        assert_eq!(steps.collect::<Vec<_>>().join(", "), expect, "{mechanism} {responses:?}");
    }

    #[test]
    fn sasl_plain_and_login_exchanges() {
        check("PLAIN", &["\0alice\0secret"], "alice secret");
        check("PLAIN", &["alice\0alice\0secret"], "alice secret");
        check("PLAIN", &["\0älice\0geheim ß"], "älice geheim ß");
        check("PLAIN", &["bob\0alice\0secret"], "ForAnother { user: \"alice\" }");
        check("PLAIN", &["bob\0\0secret"], "Malformed");
        check("PLAIN", &["alice\0secret"], "Malformed");
        check("PLAIN", &["\0alice\0secret\0"], "Malformed");
        check("PLAIN", &["\0\0secret"], "Malformed");
        check("PLAIN", &["\0alice\0"], "Malformed");
        check("PLAIN", &[&format!("\0{}\0secret", "a".repeat(256))], "Malformed");
        check("LOGIN", &["alice", "secret"], "Password:, alice secret");
        check("LOGIN", &["alice", ""], "Password:, Malformed");
        check("LOGIN", &["al\0ice"], "Malformed");
        assert!(Exchange::begin("CRAM-MD5").is_none());
    }

    #[test]
    fn sasl_responses_as_they_stand() {
        for (response, expect) in [
            ("*", Step::Cancelled),
            ("=", Step::Malformed),
            ("", Step::Malformed),
            ("AGFsaWNlAHNlY3JldA", Step::Malformed),
            ("AGFsaWNl!HNlY3JldA==", Step::Malformed),
            ("AP9hAGI=", Step::Malformed),
        ] {
            assert_eq!(Exchange::Plain.respond(response.as_bytes()), expect, "{response}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_octets_have_an_answer(response in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            Exchange::Plain.respond(&response);
            Exchange::LoginUser.respond(&response);
        }
    }
}
