//! One part of a message as every content check is shown it: its content in one reading, its names, and where
//! it lies.

use std::fmt;

/// One reading of one part.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The header's octets; empty for what has none, such as a uuencoded file.
    pub header: &'a [u8],
    /// Every name that a mail reader could show or store the part under; empty for most parts.
    pub names: &'a [String],
    /// The decoded content.
    pub content: &'a [u8],
    /// What the content is.
    pub kind: PartKind,
    /// Where it lies.
    pub path: PartPath<'a>,
}

/// What stands in a part's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartKind {
    /// What somebody attached or wrote, decoded.
    Content,
    /// A multipart's body, undecoded: it comes again as parts of their own.
    Multipart,
    /// The whole message as it was received: it came before, as parts.
    Message,
}

/// Where a part lies: the names of what it lies in, outermost first, and its own; `forwarded.eml/a.exe`. The
/// message itself isn't named, nor are multiparts.
#[derive(Debug, Clone, Copy)]
pub struct PartPath<'a> {
    outer: Option<&'a PartPath<'a>>,
    depth: usize,
    name: Option<&'a str>,
}

impl<'a> PartPath<'a> {
    /// The path of what lies in `outer`, or in the message itself.
    pub fn new(outer: Option<&'a PartPath<'a>>, name: Option<&'a str>) -> Self {
        Self { outer, depth: outer.map_or(0, |outer| outer.depth + 1), name }
    }

    /// How many messages, and files that hold others, it lies in.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The part's own name, the first of those that it has.
    pub fn name(&self) -> Option<&'a str> {
        self.name
    }
}

impl fmt::Display for PartPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(outer) = self.outer {
            write!(f, "{outer}/")?;
        }
        f.write_str(self.name.unwrap_or("(unnamed)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_what_a_part_lies_in() {
        let message = PartPath::new(None, Some("forwarded.eml"));
        let unnamed = PartPath::new(Some(&message), None);
        let file = PartPath::new(Some(&unnamed), Some("a.exe"));
        assert_eq!(file.to_string(), "forwarded.eml/(unnamed)/a.exe");
        assert_eq!([message.depth(), unnamed.depth(), file.depth()], [0, 1, 2]);
        assert_eq!((unnamed.name(), file.name()), (None, Some("a.exe")));
    }
}
