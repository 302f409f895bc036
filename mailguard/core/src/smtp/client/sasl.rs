//! The client's side of SASL, within AUTH (RFC 4954 §4): DIGEST-MD5 (RFC 2831), CRAM-MD5
//! (RFC 2195), PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login-00).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use md5::{Digest, Md5};

use crate::config::model::{Login, Mechanism};

/// The number of the nonce's use: each is used once.
const NONCE_COUNT: &str = "00000001";

/// An exchange under way.
#[derive(Debug)]
pub(super) struct Exchange {
    mechanism: Mechanism,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Nothing was said since AUTH.
    First,
    /// LOGIN: the password is due.
    Password,
    /// DIGEST-MD5: the server must prove by this that it knows the password, too.
    Proof(String),
    /// Our part is done.
    Done,
}

/// The strongest mechanism that both sides allow. One that tells the password is allowed only where
/// `may_tell`.
pub(super) fn choose(login: &Login, offered: &[Mechanism], may_tell: bool) -> Option<Mechanism> {
    Mechanism::ALL.into_iter().find(|mechanism| {
        login.methods.contains(mechanism)
            && offered.contains(mechanism)
            && (may_tell || !mechanism.tells_password())
    })
}

impl Exchange {
    pub(super) fn new(mechanism: Mechanism) -> Self {
        Self { mechanism, step: Step::First }
    }

    pub(super) fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The AUTH command, with the initial response where the mechanism begins with us.
    pub(super) fn command(&mut self, login: &Login) -> Vec<u8> {
        let name = self.mechanism.name();
        let text = match self.mechanism {
            Mechanism::Plain => {
                self.step = Step::Done;
                let message = format!("\0{}\0{}", login.user, login.password);
                format!("AUTH {name} {}\r\n", STANDARD.encode(message))
            }
            _ => format!("AUTH {name}\r\n"),
        };
        text.into_bytes()
    }

    /// Whether the server may say now that it believes us. One that must prove itself may not before it has.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.step, Step::Done)
    }

    /// Our response to a challenge as it stands behind 334; the error says what is wrong with it. `host` is
    /// the server's name, `cnonce` is new and not to be guessed.
    pub(super) fn respond(
        &mut self,
        login: &Login,
        challenge: &str,
        host: &str,
        cnonce: &str,
    ) -> Result<Vec<u8>, &'static str> {
        let response = self.response(login, challenge, host, cnonce)?;
        Ok(format!("{}\r\n", STANDARD.encode(response)).into_bytes())
    }

    fn response(
        &mut self,
        login: &Login,
        challenge: &str,
        host: &str,
        cnonce: &str,
    ) -> Result<Vec<u8>, &'static str> {
        let decoded = STANDARD.decode(challenge.trim()).map_err(|_| "a challenge that isn't base64")?;
        Ok(match (self.mechanism, &self.step) {
            (Mechanism::CramMd5, Step::First) => {
                self.step = Step::Done;
                format!("{} {}", login.user, keyed(&login.password, &decoded)).into_bytes()
            }
            (Mechanism::DigestMd5, Step::First) => {
                let challenge = Challenge::of(&decoded)?;
                let (response, proof) = challenge.answer(login, host, cnonce);
                self.step = Step::Proof(proof);
                response
            }
            (Mechanism::DigestMd5, Step::Proof(proof)) => {
                let said = String::from_utf8_lossy(&decoded);
                if said.trim() != format!("rspauth={proof}") {
                    return Err("no proof that it knows the password");
                }
                self.step = Step::Done;
                Vec::new()
            }
            (Mechanism::Login, Step::First) => {
                self.step = Step::Password;
                login.user.clone().into_bytes()
            }
            (Mechanism::Login, Step::Password) => {
                self.step = Step::Done;
                login.password.clone().into_bytes()
            }
            _ => return Err("a challenge too many"),
        })
    }
}

/// HMAC-MD5 in hexadecimal digits.
fn keyed(key: &str, message: &[u8]) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Md5>::new_from_slice(key.as_bytes()) else { return String::new() };
    mac.update(message);
    hex(&mac.finalize().into_bytes())
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// What a server says at the beginning of DIGEST-MD5 (RFC 2831 §2.1.1), as far as it matters.
#[derive(Debug, Default)]
struct Challenge {
    realm: Option<String>,
    nonce: String,
    utf8: bool,
}

impl Challenge {
    fn of(text: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(text).map_err(|_| "a DIGEST-MD5 challenge that isn't text")?;
        let (mut challenge, mut auth, mut nonces, mut session) = (Self::default(), true, 0, false);
        for (name, value) in directives(text).ok_or("a DIGEST-MD5 challenge that can't be read")? {
            match name.to_ascii_lowercase().as_str() {
                "realm" => drop(challenge.realm.get_or_insert(value)),
                "nonce" => {
                    challenge.nonce = value;
                    nonces += 1;
                }
                "qop" => auth = value.split(',').any(|qop| qop.trim().eq_ignore_ascii_case("auth")),
                "algorithm" => session = value.eq_ignore_ascii_case("md5-sess"),
                "charset" => challenge.utf8 = value.eq_ignore_ascii_case("utf-8"),
                _ => {}
            }
        }
        match (nonces, auth && session) {
            (1, true) => Ok(challenge),
            (1, false) => Err("a DIGEST-MD5 challenge without qop=auth or algorithm=md5-sess"),
            _ => Err("a DIGEST-MD5 challenge without one nonce"),
        }
    }

    /// The response (§2.1.2), and what the server will say if it knows the password (§2.1.3).
    fn answer(&self, login: &Login, host: &str, cnonce: &str) -> (Vec<u8>, String) {
        let realm = self.realm.as_deref().unwrap_or_default();
        let uri = format!("smtp/{host}");
        let nonce = &self.nonce;
        let secret = [latin(&login.user), latin(realm), latin(&login.password)].join(&b':');
        let mut a1 = Md5::digest(secret).to_vec();
        a1.extend_from_slice(format!(":{nonce}:{cnonce}").as_bytes());
        let key = hex(&Md5::digest(a1));
        let digest = |method: &str| {
            let a2 = hex(&Md5::digest(format!("{method}:{uri}")));
            hex(&Md5::digest(format!("{key}:{nonce}:{NONCE_COUNT}:{cnonce}:auth:{a2}")))
        };
        let charset = if self.utf8 { "charset=utf-8," } else { "" };
        let realm = self.realm.as_ref().map(|realm| format!("realm={},", quoted(realm))).unwrap_or_default();
        let response = format!(
            "{charset}username={},{realm}nonce={},nc={NONCE_COUNT},cnonce={},digest-uri={},response={},qop=auth",
            quoted(&login.user),
            quoted(nonce),
            quoted(cnonce),
            quoted(&uri),
            digest("AUTHENTICATE"),
        );
        // Who doesn't say UTF-8 reads ISO 8859-1 (§2.1.2).
        let response = if self.utf8 { response.into_bytes() } else { latin(&response) };
        (response, digest(""))
    }
}

/// What is hashed of a text: in ISO 8859-1 where that has every character, in UTF-8 otherwise (RFC 2831
/// §2.1.2.1).
fn latin(text: &str) -> Vec<u8> {
    let narrow: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
    narrow.unwrap_or_else(|| text.as_bytes().to_vec())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// `name=value` and `name="value"`, by commas; nothing if it isn't that.
fn directives(text: &str) -> Option<Vec<(&str, String)>> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(inner) => unquoted(inner)?,
            None => {
                let end = after.find(',').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        found.push((name.trim(), value));
        // Commas may stand alone.
        rest = after.trim_start();
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
        rest = rest.trim_start_matches(|c: char| c == ',' || c.is_ascii_whitespace());
    }
    Some(found)
}

/// The value up to its closing quote, and what follows.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str, password: &str) -> Login {
        crate::testing::login(user, password, &Mechanism::ALL)
    }

    /// Challenges and responses in clear, in turn; an error ends it.
    fn check(mechanism: Mechanism, login: &Login, turns: &[(&str, &str)]) {
        let mut exchange = Exchange::new(mechanism);
        exchange.command(login);
        for (challenge, expect) in turns {
            let got =
                exchange.respond(login, &STANDARD.encode(challenge), "elwood.innosoft.com", "OA6MHXh6VqTrRk");
            let got = match got {
                Ok(line) => {
                    let line = String::from_utf8(line).unwrap();
                    String::from_utf8(STANDARD.decode(line.trim_end()).unwrap()).unwrap()
                }
                Err(why) => format!("! {why}"),
            };
            assert_eq!(got, *expect, "{mechanism:?} {challenge}");
        }
    }

    /// RFC 2195 §2.
    #[test]
    fn cram_md5_as_its_rfc_shows_it() {
        let tim = login("tim", "tanstaaftanstaaf");
        let challenge = "<1896.697170952@postoffice.reston.mci.net>";
        check(
            Mechanism::CramMd5,
            &tim,
            &[(challenge, "tim b913a602c7eda7a495b4e6e7334d3890"), (challenge, "! a challenge too many")],
        );
    }

    /// The example of RFC 2831 §4, with the service "smtp" in place of "imap": the response was computed
    /// apart from this code.
    #[test]
    fn digest_md5_proves_both_sides() {
        let chris = login("chris", "secret");
        let challenge = "realm=\"elwood.innosoft.com\",nonce=\"OA6MG9tEQGm2hh\",qop=\"auth\",\
                         algorithm=md5-sess,charset=utf-8";
        let response = "charset=utf-8,username=\"chris\",realm=\"elwood.innosoft.com\",nonce=\"OA6MG9tEQGm2hh\",\
                        nc=00000001,cnonce=\"OA6MHXh6VqTrRk\",digest-uri=\"smtp/elwood.innosoft.com\",\
                        response=52ff44907f72314481b5c098c708ebf3,qop=auth";
        check(
            Mechanism::DigestMd5,
            &chris,
            &[(challenge, response), ("rspauth=84106ee5cb85c426e7ef928db0e49bfa", "")],
        );
        check(
            Mechanism::DigestMd5,
            &chris,
            &[(challenge, response), ("rspauth=0", "! no proof that it knows the password")],
        );
    }

    #[test]
    fn a_server_that_does_not_say_utf_8_reads_latin_1() {
        let login = login("älice", "geheim ß");
        let challenge = STANDARD.encode("nonce=\"a\",algorithm=md5-sess");
        let mut exchange = Exchange::new(Mechanism::DigestMd5);
        let line = exchange.respond(&login, &challenge, "mx.test", "b").unwrap();
        let response = STANDARD.decode(line.trim_ascii_end()).unwrap();
        assert!(response.starts_with(b"username=\"\xe4lice\",nonce="), "{response:?}");
    }

    #[test]
    fn digest_md5_challenges_that_are_none() {
        let chris = login("chris", "secret");
        for (challenge, why) in [
            ("", "a DIGEST-MD5 challenge without one nonce"),
            ("nonce=\"a\",nonce=\"b\",algorithm=md5-sess", "a DIGEST-MD5 challenge without one nonce"),
            ("nonce=\"a", "a DIGEST-MD5 challenge that can't be read"),
            ("nonce=\"a\" algorithm=md5-sess", "a DIGEST-MD5 challenge that can't be read"),
            (
                "nonce=\"a\",qop=\"auth-int\",algorithm=md5-sess",
                "a DIGEST-MD5 challenge without qop=auth or algorithm=md5-sess",
            ),
            ("nonce=\"a\"", "a DIGEST-MD5 challenge without qop=auth or algorithm=md5-sess"),
        ] {
            check(Mechanism::DigestMd5, &chris, &[(challenge, &format!("! {why}"))]);
        }
        let mut exchange = Exchange::new(Mechanism::Login);
        assert!(exchange.respond(&chris, "!", "x", "y").is_err());
    }

    #[test]
    fn login_and_plain() {
        let somebody = login("älice", "geheim ß");
        check(Mechanism::Login, &somebody, &[("Username:", "älice"), ("Password:", "geheim ß")]);
        let mut plain = Exchange::new(Mechanism::Plain);
        assert_eq!(plain.command(&login("alice", "secret")), b"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n");
        assert!(plain.is_done());
    }

    #[test]
    fn the_strongest_sasl_mechanism_that_both_allow_and_no_password_in_the_clear() {
        let mut login = login("a", "b");
        assert_eq!(choose(&login, &Mechanism::ALL, true), Some(Mechanism::DigestMd5));
        assert_eq!(choose(&login, &[Mechanism::Login, Mechanism::CramMd5], true), Some(Mechanism::CramMd5));
        assert_eq!(choose(&login, &[Mechanism::Login, Mechanism::Plain], true), Some(Mechanism::Plain));
        assert_eq!(choose(&login, &[Mechanism::Login, Mechanism::Plain], false), None);
        login.methods = vec![Mechanism::Login];
        assert_eq!(choose(&login, &Mechanism::ALL, true), Some(Mechanism::Login));
        assert_eq!(choose(&login, &[], true), None);
    }

    proptest::proptest! {
        #[test]
        fn any_sasl_challenge_has_an_answer(text in ".{0,80}") {
            let _ = directives(&text);
            let _ = Challenge::of(text.as_bytes());
        }
    }
}
