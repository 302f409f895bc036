//! `[smarthost]`, `[[domain_route]]` and `[[mail_route]]`.

use std::collections::HashMap;
use std::sync::Arc;

use super::model::*;
use super::named::NamedFiles;
use super::resolve::unique;
use super::section::Section;
use super::syntax;

/// Domain routes.
const MAX_DOMAIN_ROUTES: usize = 4_096;
/// Mail routes.
const MAX_MAIL_ROUTES: usize = 4_096;

/// Octets of `username` and `password` (RFC 4616 §2).
const MAX_CREDENTIAL_OCTETS: usize = 255;

/// The general smarthost; nothing when it isn't enabled.
pub(super) fn smarthost(section: &mut Section<'_>, from: &NamedFiles) -> Option<Arc<Smarthost>> {
    let enabled = section.flag("enabled", false);
    read(section, enabled, from).filter(|_| enabled).map(Arc::new)
}

/// The values of a smarthost's table; nothing without a usable address.
fn read(section: &mut Section<'_>, enabled: bool, from: &NamedFiles) -> Option<Smarthost> {
    let host = section.text_or_empty("address", &syntax::SMARTHOST);
    let tls = section.choice(
        "tls",
        "opportunistic",
        &[
            ("off", Tls::Off),
            ("opportunistic", Tls::Opportunistic),
            ("required", Tls::Required),
            ("implicit", Tls::Implicit),
        ],
    );
    let usual_port = if tls == Tls::Implicit { 465 } else { 25 };
    let port = section.count("port", usual_port, 1..=65_535) as u16;
    let ca = section.text_or_empty("ca_file", &syntax::PATH).and_then(|path| from.text(&path));
    let login = login(section, from);
    if enabled && !section.has_text("address") {
        section.conflict(
            "address",
            "an enabled smarthost needs an address",
            "add address = \"NAME OR ADDRESS\"",
        );
    }
    Some(Smarthost { host: host?, port, tls, ca, login })
}

fn login(section: &mut Section<'_>, from: &NamedFiles) -> Option<Login> {
    let user = section.text_or_empty("username", &syntax::CREDENTIAL);
    let password = section.text_or_empty("password", &syntax::CREDENTIAL);
    let file = section.text_or_empty("password_file", &syntax::PATH);
    let (written, filed) = (section.has_text("password"), section.has_text("password_file"));
    let methods = section.list("methods", &syntax::MECHANISM, Mechanism::ALL.len());
    if methods.as_ref().is_some_and(Vec::is_empty) {
        section.conflict("methods", "no method is allowed", "name one, or remove the key");
    }
    if written && filed {
        section.conflict("password_file", "there is a password, too", "remove one of the two");
    }
    if section.has_text("username") && !written && !filed {
        let remedy = "add password_file = \"/PATH\", or password = \"PASSWORD\"";
        section.conflict("username", "a username needs a password", remedy);
    }
    let filed = file.and_then(|path| {
        let text = from.text(&path)?;
        let line = text.lines().next().unwrap_or_default();
        if line.is_empty() || line.len() > MAX_CREDENTIAL_OCTETS {
            let what = format!("{} holds no password of 1 to {MAX_CREDENTIAL_OCTETS} octets", path.display());
            section.conflict("password_file", what, "write the password into its first line");
        }
        Some(line.to_owned())
    });
    let methods = methods.unwrap_or_else(|| Mechanism::ALL.to_vec());
    Some(Login { user: user?, password: password.or(filed)?, methods })
}

pub(super) fn domain_routes(root: &mut Section<'_>, from: &NamedFiles) -> Vec<DomainRoute> {
    let mut seen = HashMap::new();
    let routes = root.tables("domain_route", MAX_DOMAIN_ROUTES, |section| {
        let direction = direction(section);
        let domain = section.require("domain", &syntax::DOMAIN);
        let outgoing = section.text_or_empty("outgoing_address", &syntax::OUTGOING);
        let present = section.has("smarthost");
        let smarthost = section.table("smarthost", |section| own_smarthost(section, present, from));
        let domain = domain?;
        unique(section, &mut seen, "domain", format!("the {direction} domain \"{}\"", domain.ascii()));
        Some(DomainRoute { direction, domain, outgoing, smarthost })
    });
    routes.into_iter().flatten().collect()
}

/// To write it is to enable it.
fn own_smarthost(section: &mut Section<'_>, present: bool, from: &NamedFiles) -> RouteSmarthost {
    let enabled = section.flag("enabled", true);
    let smarthost = read(section, present && enabled, from);
    match smarthost {
        _ if !present => RouteSmarthost::General,
        Some(smarthost) if enabled => RouteSmarthost::Own(Arc::new(smarthost)),
        _ => RouteSmarthost::Without,
    }
}

pub(super) fn mail_routes(root: &mut Section<'_>) -> Vec<MailRoute> {
    let routes = root.tables("mail_route", MAX_MAIL_ROUTES, |section| {
        let direction = direction(section);
        let address = section.require("address", &syntax::MAILBOX);
        let bcc = section.require("bcc", &syntax::MAILBOX);
        Some(MailRoute { direction, address: address?, bcc: bcc? })
    });
    routes.into_iter().flatten().collect()
}

fn direction(section: &mut Section<'_>) -> Direction {
    section.expect_key("direction", "\"sender\" or \"recipient\"");
    let words = [("sender", Direction::Sender), ("recipient", Direction::Recipient)];
    section.choice("direction", "recipient", &words)
}
