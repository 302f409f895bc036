//! Values for a list out of a text of their own, as `--from-file` reads them: one a line, as in a file that a
//! list names. All of them, or every line that isn't one.

use std::collections::HashMap;
use std::fmt::Write;

use super::lists::EditList;
use super::tree;

/// Wrong lines that are told; the others are counted.
const MAX_TOLD: usize = 10;

/// The text doesn't hold values of the list alone: the wrong lines, one each, as
/// `FILE:LINE: what was expected`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}nothing was changed")]
pub struct BatchError(String);

/// The values in `text`, for `list`. `name` is what errors call the text.
pub fn batch(list: EditList, name: &str, text: &str) -> Result<Vec<String>, BatchError> {
    let line = |offset: usize| 1 + text[..offset].matches('\n').count();
    let mut first: HashMap<String, usize> = HashMap::new();
    let (mut values, mut told, mut wrong) = (Vec::new(), String::new(), 0);
    for (offset, value) in tree::lines(text) {
        let complaint = match list.read(value) {
            Err(error) => error.to_string(),
            Ok(entry) => match first.insert(entry.compared, offset) {
                None => {
                    values.push(value.to_owned());
                    continue;
                }
                Some(before) => format!("{value} is in line {} already", line(before)),
            },
        };
        wrong += 1;
        if wrong <= MAX_TOLD {
            // Writing to a String can't fail.
            let _ = writeln!(told, "{name}:{}: {complaint}", line(offset));
        }
    }
    if wrong > MAX_TOLD {
        let _ = writeln!(told, "and {} wrong lines more", wrong - MAX_TOLD);
    }
    if values.is_empty() && wrong == 0 {
        let _ = writeln!(told, "{name}: holds no value: one a line is expected for {}", list.key());
    }
    if told.is_empty() { Ok(values) } else { Err(BatchError(told)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        batch(EditList::BlacklistClient, "bad.txt", text).map_err(|error| error.to_string())
    }

    #[test]
    fn one_value_a_line_comments_and_blank_lines_between() {
        let text = "\u{feff}# spammers\n\n192.0.2.1\t# since May\r\n  2001:db8::/32  \n";
        assert_eq!(read(text), Ok(vec!["192.0.2.1".to_owned(), "2001:db8::/32".to_owned()]));
        let nothing = "bad.txt: holds no value: one a line is expected for access.blacklist_clients\nnothing was changed";
        assert_eq!(read("# nobody\n"), Err(nothing.to_owned()));
    }

    #[test]
    fn one_wrong_line_refuses_all() {
        let expect = "\
bad.txt:2: \"192.0.2.256\" is not accepted in access.blacklist_clients: it takes an address like \"192.0.2.7\", a network like \"192.0.2.0/24\" or a host name like \"mx.example.com\"
bad.txt:4: 192.0.2.1/32 is in line 1 already
nothing was changed";
        assert_eq!(
            read("192.0.2.1\n192.0.2.256\n# a comment\n192.0.2.1/32\n192.0.2.9\n"),
            Err(expect.to_owned())
        );
        let many = read(&"nonsense\n".repeat(15)).unwrap_err();
        assert!(many.ends_with("\nand 5 wrong lines more\nnothing was changed"), "{many}");
        assert_eq!(many.lines().count(), 12);
    }
}
