//! Blocked files: a part with a listed extension under any of its names, or with a program's content under
//! another.

use mailguard_core::finding::{Check, Finding, Threat};
use mailguard_core::mime::{Part, PartKind, Summary};

use crate::engine::{PartEngine, Tally};
use crate::threats::{Threats, shown};

/// The listed extensions that one content gives away: all of them are programs of DOS and Windows.
const PROGRAM_EXTENSIONS: [&str; 5] = ["exe", "dll", "com", "scr", "pif"];

/// How far into a program something must stand that no text holds, octets.
const PROGRAM_HEADER_OCTETS: usize = 64;

/// Where a program's header says at which offset the new header stands (4 octets, little-endian).
const NEW_HEADER_AT: usize = 0x3C;

/// What is blocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockedFiles {
    /// Lower case, with the dot.
    endings: Vec<String>,
    programs: bool,
}

/// Why a part is blocked.
struct Blocked {
    /// The name that gave it away, or the first of those it has.
    name: String,
    /// In one line.
    reason: String,
}

impl BlockedFiles {
    /// Blocks these extensions (without dot, any case).
    pub fn new(extensions: &[String]) -> Self {
        let endings: Vec<String> =
            extensions.iter().map(|e| format!(".{}", e.trim_start_matches('.').to_lowercase())).collect();
        let programs = PROGRAM_EXTENSIONS.iter().any(|program| extensions.iter().any(|e| e == program));
        Self { endings, programs }
    }

    /// Whether a part is blocked.
    fn examine(&self, part: &Part<'_>) -> Option<Blocked> {
        for name in part.names {
            let lower = name.to_lowercase();
            if let Some(ending) = self.endings.iter().find(|ending| lower.ends_with(ending.as_str())) {
                let reason = format!("extension {ending} of \"{name}\"");
                return Some(Blocked { name: name.clone(), reason });
            }
        }
        if self.programs && part.kind == PartKind::Content && is_program(part.content) {
            let name = part.path.name().unwrap_or("(unnamed)").to_owned();
            let reason = format!("content of a program under the name \"{name}\"");
            return Some(Blocked { name, reason });
        }
        None
    }
}

impl PartEngine for BlockedFiles {
    fn check(&self) -> Check {
        Check::Files
    }

    fn begin(&self) -> Box<dyn Tally + '_> {
        Box::new(FilesTally { blocked: self, threats: Threats::default() })
    }
}

struct FilesTally<'e> {
    blocked: &'e BlockedFiles,
    threats: Threats,
}

impl Tally for FilesTally<'_> {
    fn part(&mut self, part: &Part<'_>) {
        if let Some(found) = self.blocked.examine(part) {
            self.threats.add(Threat::File(shown(&found.name)), found.reason);
        }
    }

    fn finish(self: Box<Self>, walk: &Summary) -> Vec<Finding> {
        self.threats.into_findings(Check::Files, walk)
    }
}

/// MZ, and something that text doesn't hold: "MZ" alone begins sentences, too.
fn is_program(content: &[u8]) -> bool {
    if !content.starts_with(b"MZ") {
        return false;
    }
    content.iter().take(PROGRAM_HEADER_OCTETS).any(|octet| *octet == 0) || has_new_header(content)
}

fn has_new_header(content: &[u8]) -> bool {
    let Some(Ok(offset)) = content.get(NEW_HEADER_AT..NEW_HEADER_AT + 4).map(<[u8; 4]>::try_from) else {
        return false;
    };
    let offset = u32::from_le_bytes(offset) as usize;
    content.get(offset..).is_some_and(|header| header.starts_with(b"PE\0\0"))
}

#[cfg(test)]
mod tests {
    use mailguard_core::mime::PartPath;

    use super::*;

    #[track_caller]
    fn check(extensions: &[&str], names: &[&str], content: &[u8], expect: Option<&str>) {
        let extensions: Vec<String> = extensions.iter().map(|e| (*e).to_owned()).collect();
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let path = PartPath::new(None, names.first().map(String::as_str));
        let part = Part { header: b"", names: &names, content, kind: PartKind::Content, path };
        let reason = BlockedFiles::new(&extensions).examine(&part).map(|blocked| blocked.reason);
        assert_eq!(reason.as_deref(), expect, "{names:?}");
    }

    #[test]
    fn by_name() {
        check(&["exe", "bat"], &["a.txt", "a.EXE"], b"", Some("extension .exe of \"a.EXE\""));
        check(&["exe"], &[".exe"], b"", Some("extension .exe of \".exe\""));
        check(&["tar.gz"], &["a.tar.gz"], b"", Some("extension .tar.gz of \"a.tar.gz\""));
        check(&["exe"], &["exe", "a.exe.txt", "aexe"], b"", None);
        check(&[], &["a.exe"], b"MZ\0", None);
    }

    #[test]
    fn by_content() {
        let found = Some("content of a program under the name \"a.txt\"");
        check(&["dll"], &["a.txt"], b"MZ\x90\0\x03", found);
        check(&["exe"], &[], b"MZ\x90\0\x03", Some("content of a program under the name \"(unnamed)\""));
        let mut program = vec![b'x'; 0x90];
        program[..2].copy_from_slice(b"MZ");
        program[0x3C..0x40].copy_from_slice(&0x80_u32.to_le_bytes());
        program[0x80..0x84].copy_from_slice(b"PE\0\0");
        check(&["exe"], &["a.txt"], &program, found);
        check(&["exe"], &["a.txt"], b"MZ is how programs begin", None);
        check(&["bat"], &["a.txt"], b"MZ\x90\0\x03", None);
    }
}
