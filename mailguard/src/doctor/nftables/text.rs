//! Rules in short, for people.

use serde_json::Value;

use super::{statements, word};

/// A rule: its matches and statements, nearly as nft writes them.
pub(super) fn of(rule: &Value) -> String {
    let words = statements(rule).filter_map(|(key, value)| match key {
        "counter" => None,
        "match" => {
            let operator = match word(value, "op") {
                "==" | "in" => String::new(),
                operator => format!("{operator} "),
            };
            Some(format!("{} {operator}{}", short(&value["left"]), short(&value["right"])))
        }
        "mangle" => Some(format!("{} set {}", short(&value["key"]), short(&value["value"]))),
        "vmap" => Some(format!("{} vmap {}", short(&value["key"]), short(&value["data"]))),
        _ if value.is_null() => Some(key.to_owned()),
        _ => Some(format!("{key} {}", short(value))),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// How many elements of a set are shown.
const MAX_SHOWN: usize = 8;

fn short(value: &Value) -> String {
    let fields = match value {
        Value::String(text) => return text.clone(),
        Value::Array(items) => return items.iter().map(short).collect::<Vec<_>>().join(","),
        Value::Object(fields) => fields,
        other => return other.to_string(),
    };
    let Some((key, inner)) = fields.iter().next().filter(|_| fields.len() == 1) else {
        return fields.values().map(short).collect::<Vec<_>>().join(" ");
    };
    match (key.as_str(), inner.as_array().map(Vec::as_slice)) {
        ("payload", _) => format!("{} {}", word(inner, "protocol"), word(inner, "field")),
        ("prefix", _) => format!("{}/{}", word(inner, "addr"), inner["len"]),
        ("range", Some([first, last])) => format!("{}-{}", short(first), short(last)),
        ("concat", Some(parts)) => parts.iter().map(short).collect::<Vec<_>>().join(" . "),
        ("fib", _) => format!("fib {} {}", short(&inner["flags"]).replace(',', " . "), word(inner, "result")),
        ("set", Some(items)) => {
            let more = if items.len() > MAX_SHOWN { ", …" } else { "" };
            let shown: Vec<String> = items.iter().take(MAX_SHOWN).map(entry).collect();
            format!("{{ {}{more} }}", shown.join(", "))
        }
        (operator, Some([left, right])) => format!("{} {operator} {}", short(left), short(right)),
        _ if inner.get("key").is_some() => format!("{key} {}", word(inner, "key")),
        _ => short(inner),
    }
}

/// An element of a set, or of a map with its verdict.
fn entry(element: &Value) -> String {
    match element.as_array().map(Vec::as_slice) {
        Some([key, verdict]) => {
            let name = verdict.as_object().and_then(|verdict| verdict.iter().next());
            let (name, target) =
                name.map_or(("", ""), |(name, value)| (name.as_str(), word(value, "target")));
            format!("{} : {}", short(key), format!("{name} {target}").trim_end())
        }
        _ => short(element),
    }
}
