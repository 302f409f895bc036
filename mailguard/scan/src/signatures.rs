//! YARA rules: the built-in ones and the administrator's `virus.signatures.rules_dir`.
//!
//! One set of compiled rules serves all scans at once. It sees every decoded part and the raw message,
//! whatever their names and types; how they were come by, and what becomes of a find, is left to others.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use boreal::Compiler;
use boreal::compiler::{CompilerParams, generate_description};
use boreal::scanner::{ScanError, ScanParams};
use mailguard_core::finding::{Check, Finding, Threat};
use mailguard_core::mime::{Part, PartKind, Summary};

use crate::engine::{PartEngine, Tally};
use crate::threats::{Threats, shown};

/// The rules that need no file.
const BUILT_IN: &str = include_str!("eicar.yar");

/// Longest time for one content: rules can hold regular expressions that an unlucky content makes slow.
const CONTENT_TIMEOUT: Duration = Duration::from_secs(20);

/// Most matches of one string that are remembered while a content is scanned.
const MAX_MATCHES_PER_STRING: u32 = 1000;

/// Octets of a match that are copied: names are reported, not matches.
const MATCH_OCTETS: usize = 0;

/// A rule that can't be compiled: file, line, column and what is wrong, as boreal says it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RuleError(String);

/// A content that took longer than [`CONTENT_TIMEOUT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the rules took longer than {} s for one part", CONTENT_TIMEOUT.as_secs())]
struct SignatureTimeout;

/// Compiled rules. Clones share them.
#[derive(Debug, Clone)]
pub struct Signatures {
    rules: Arc<boreal::Scanner>,
}

impl Signatures {
    /// Compiles the built-in rules and the given files (path and text). Each file is a namespace of its own:
    /// two files may hold rules of one name.
    pub fn compile(files: &[(PathBuf, String)]) -> Result<Self, RuleError> {
        let mut compiler = Compiler::new();
        // The files are read by another process; what they include wouldn't be.
        compiler.set_params(CompilerParams::default().disable_includes(true));
        add(&mut compiler, Path::new("built-in rules"), BUILT_IN)?;
        for (path, text) in files {
            add(&mut compiler, path, text)?;
        }
        let mut rules = compiler.finalize();
        rules.set_scan_params(
            ScanParams::default()
                .timeout_duration(Some(CONTENT_TIMEOUT))
                .string_max_nb_matches(MAX_MATCHES_PER_STRING)
                .match_max_length(MATCH_OCTETS),
        );
        Ok(Self { rules: Arc::new(rules) })
    }

    /// Whether these are the others' rules, and not only equal ones.
    pub fn are(&self, others: &Self) -> bool {
        Arc::ptr_eq(&self.rules, &others.rules)
    }

    /// The names of the rules that match, public ones only.
    fn scan(&self, content: &[u8]) -> Result<Vec<String>, SignatureTimeout> {
        let (failed, result) = match self.rules.scan_mem(content) {
            Ok(result) => (false, result),
            // Octets in memory: of boreal's errors only the timeout can occur.
            Err((ScanError::Timeout, result)) => (true, result),
            Err((_, result)) => (true, result),
        };
        let names: Vec<String> = result.rules.iter().map(|rule| rule.name.to_owned()).collect();
        if failed && names.is_empty() { Err(SignatureTimeout) } else { Ok(names) }
    }
}

impl PartEngine for Signatures {
    fn check(&self) -> Check {
        Check::Signatures
    }

    fn begin(&self) -> Box<dyn Tally + '_> {
        Box::new(SignaturesTally { signatures: self, threats: Threats::default() })
    }
}

struct SignaturesTally<'e> {
    signatures: &'e Signatures,
    threats: Threats,
}

impl Tally for SignaturesTally<'_> {
    fn part(&mut self, part: &Part<'_>) {
        if self.threats.has_failed() || part.kind == PartKind::Multipart {
            return;
        }
        match self.signatures.scan(part.content) {
            Ok(rules) => {
                for rule in rules {
                    let reason = format!("rule {rule} matches {}", place(part));
                    self.threats.add(Threat::Virus(rule), reason);
                }
            }
            Err(timeout) => self.threats.fail(timeout.to_string()),
        }
    }

    fn finish(self: Box<Self>, walk: &Summary) -> Vec<Finding> {
        self.threats.into_findings(Check::Signatures, walk)
    }
}

fn place(part: &Part<'_>) -> String {
    match (part.kind, part.path.name()) {
        (PartKind::Message, _) => "the message".to_owned(),
        (_, Some(name)) => format!("\"{}\"", shown(name)),
        (_, None) => "a part".to_owned(),
    }
}

fn add(compiler: &mut Compiler, path: &Path, text: &str) -> Result<(), RuleError> {
    let name = path.display().to_string();
    match compiler.add_rules_str_in_namespace(text, &name) {
        Ok(_) => Ok(()),
        Err(error) => Err(RuleError(generate_description(&error.to_diagnostic(), &name, text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::eicar;

    fn check(rules: &[(&str, &str)], content: &[u8], expect: &[&str]) {
        let files: Vec<_> =
            rules.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
        let signatures = Signatures::compile(&files).unwrap();
        assert_eq!(signatures.scan(content).unwrap(), expect);
    }

    #[test]
    fn rules_and_what_they_match() {
        check(&[], b"hello", &[]);
        check(&[], eicar().as_bytes(), &["EICAR_Test_File"]);
        let own = "rule Own { strings: $a = \"bad\" condition: $a }";
        let magic = "import \"pe\" import \"hash\" rule Empty { condition: filesize == 0 and not pe.is_pe }";
        check(&[("a.yar", own), ("b.yar", own)], b"so bad", &["Own", "Own"]);
        check(&[("a.yar", own), ("b.yar", magic)], b"", &["Empty"]);
    }

    #[test]
    fn an_error_names_file_and_line() {
        for (text, expect) in [
            ("rule A {\n condition: true }\nrule B { condition: $x }", "/etc/rules/x.yar:3:"),
            ("rule A {", "/etc/rules/x.yar:1:"),
            ("include \"other.yar\"", "includes are not allowed"),
        ] {
            let error = Signatures::compile(&[("/etc/rules/x.yar".into(), text.to_owned())]).unwrap_err();
            assert!(error.to_string().contains(expect), "{error}");
        }
    }
}
