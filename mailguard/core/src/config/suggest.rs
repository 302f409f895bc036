//! "Did you mean …?": the nearest of the words that would have been accepted.

/// The candidate that differs from `word` in at most a third of its letters; none if several are as near.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer words are no slip of the finger, and the comparison takes time with the square of the length.
    const MAX_WORD_CHARACTERS: usize = 64;
    let letters: Vec<char> = word.chars().take(MAX_WORD_CHARACTERS + 1).collect();
    if letters.len() > MAX_WORD_CHARACTERS {
        return None;
    }
    let limit = letters.len().div_ceil(3).min(4);
    let mut best: Option<(usize, &str)> = None;
    let mut tied = false;
    for candidate in candidates {
        let distance = distance(&letters, candidate);
        match best {
            _ if distance > limit => {}
            Some((nearest, _)) if distance > nearest => {}
            Some((nearest, known)) if distance == nearest => tied |= known != candidate,
            _ => {
                best = Some((distance, candidate));
                tied = false;
            }
        }
    }
    best.filter(|_| !tied).map(|(_, candidate)| candidate)
}

/// Insertions, removals, replacements and swaps of neighbours that turn one word into the other.
fn distance(word: &[char], candidate: &str) -> usize {
    let other: Vec<char> = candidate.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=other.len()).collect();
    for (i, &letter) in word.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &wanted) in other.iter().enumerate() {
            let replaced = above[j] + usize::from(letter != wanted);
            let mut least = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && letter == other[j - 1] && word[i - 1] == wanted {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(word: &str, expect: Option<&str>) {
        let candidates = ["hostname", "retry_min", "retry_max", "tls", "max_size", "extensions"];
        assert_eq!(nearest(word, candidates), expect, "{word}");
    }

    #[test]
    fn slips_of_the_finger() {
        check("hostnmae", Some("hostname"));
        check("host_name", Some("hostname"));
        check("tsl", Some("tls"));
        check("maxsize", Some("max_size"));
        check("retry_mix", None); // as near to one as to the other
        check("blacklist", None);
        check(&"x".repeat(10_000), None);
    }
}
