//! The languages in which people are spoken to (`language`), and what of them fits where.

use std::borrow::Cow;

/// A language of replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// `en`
    English,
    /// `de`
    German,
    /// `it`
    Italian,
    /// `ja`
    Japanese,
}

/// One text in every language.
#[derive(Debug, Clone, Copy)]
pub struct Texts {
    /// English; ASCII.
    pub en: &'static str,
    /// German.
    pub de: &'static str,
    /// Italian.
    pub it: &'static str,
    /// Japanese.
    pub ja: &'static str,
}

/// How a client is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wording {
    /// In this language,
    pub language: Language,
    /// in UTF-8: it has said SMTPUTF8 (RFC 6531 §3.7.4). Otherwise in ASCII.
    pub utf8: bool,
}

/// What administrators read, whatever the clients do.
pub const ENGLISH: Wording = Wording { language: Language::English, utf8: false };

impl Texts {
    /// The text, as far as the client can read it: in ASCII, German and Italian are written as on a
    /// typewriter without umlauts and accents, and Japanese, which can't be, is replaced by English.
    pub fn of(&self, wording: Wording) -> Cow<'static, str> {
        let text = match wording.language {
            Language::English => self.en,
            Language::German => self.de,
            Language::Italian => self.it,
            Language::Japanese => self.ja,
        };
        if wording.utf8 || text.is_ascii() {
            return text.into();
        }
        let mut ascii = String::with_capacity(text.len());
        for letter in text.chars() {
            match spelt(letter) {
                Some(letters) => ascii.push_str(letters),
                None if letter.is_ascii() => ascii.push(letter),
                None => return self.en.into(),
            }
        }
        ascii.into()
    }
}

fn spelt(letter: char) -> Option<&'static str> {
    Some(match letter {
        'ä' => "ae",
        'ö' => "oe",
        'ü' => "ue",
        'Ä' => "Ae",
        'Ö' => "Oe",
        'Ü' => "Ue",
        'ß' => "ss",
        'à' => "a'",
        'è' => "e'",
        'é' => "e'",
        'ì' => "i'",
        'ò' => "o'",
        'ù' => "u'",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_cannot_read_is_spelt_or_said_in_english() {
        let texts = Texts { en: "full", de: "Überfüllt", it: "È pieno: è così", ja: "満杯" };
        for (language, ascii, utf8) in [
            (Language::English, "full", "full"),
            (Language::German, "Ueberfuellt", "Überfüllt"),
            // A letter without a spelling is no reason to say nothing.
            (Language::Italian, "full", "È pieno: è così"),
            (Language::Japanese, "full", "満杯"),
        ] {
            assert_eq!(texts.of(Wording { language, utf8: false }), ascii);
            assert_eq!(texts.of(Wording { language, utf8: true }), utf8);
        }
    }
}
