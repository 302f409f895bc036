//! Which names of which types stand in golden rows. A deserializer that notes what the types say of
//! themselves while it reads: a name that no row shows isn't pinned, and one that the source doesn't write
//! out changes with Rust's.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, VariantAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Value};

/// Rust's name of a type, and the names in it on disk. Types of one name are told apart by the latter.
type Type = (String, &'static [&'static str]);

/// For each type that stood in a row, the names that did.
#[derive(Default)]
pub(super) struct Names(RefCell<BTreeMap<Type, BTreeSet<String>>>);

impl Names {
    /// Notes what stands in a row.
    pub(super) fn note<T: DeserializeOwned>(&self, row: &str) {
        let value: Value = serde_json::from_str(row).unwrap();
        let read = T::deserialize(Noting { value: &value, names: self });
        assert!(read.is_ok(), "{row}: {:?}", read.err());
    }

    fn add<'n>(&self, name: &str, all: &'static [&'static str], shown: impl Iterator<Item = &'n str>) {
        let mut types = self.0.borrow_mut();
        types.entry((name.to_owned(), all)).or_default().extend(shown.map(str::to_owned));
    }

    /// That each name was in some row, but for those that `never` are.
    pub(super) fn assert_all_shown(&self, never: &[&str]) {
        for ((name, all), shown) in &*self.0.borrow() {
            let missing: Vec<_> =
                all.iter().filter(|name| !shown.contains(**name) && !never.contains(*name)).collect();
            assert!(missing.is_empty(), "{name}: no golden row shows {missing:?}: add one that does");
        }
    }

    /// That each name stands in an attribute of its own in the source.
    pub(super) fn assert_written_out(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut source = String::new();
        for folder in ["src", "core/src"] {
            read_sources(&root.join(folder), &mut source);
        }
        let types = self.0.borrow();
        for (name, all) in types.keys().filter(|(name, _)| !name.contains("::")) {
            let variants = types.keys().filter(|(of, _)| of.starts_with(&format!("{name}::")));
            let mut expect: Vec<&str> =
                variants.flat_map(|(_, fields)| *fields).chain(*all).copied().collect();
            expect.sort_unstable();
            assert!(
                definitions(&source, name).any(|definition| written_out(definition) == expect),
                "{name}: give each of {expect:?} its own #[serde(rename = \"…\")]: what is on disk must not change with Rust's names"
            );
        }
    }
}

fn read_sources(folder: &Path, source: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_sources(&path, source);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            source.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// The types of this name in the source, from brace to brace.
fn definitions<'s>(source: &'s str, name: &str) -> impl Iterator<Item = &'s str> {
    let begins = [format!("struct {name} {{\n"), format!("enum {name} {{\n")];
    let found: Vec<usize> =
        begins.iter().flat_map(|begin| source.match_indices(begin.as_str())).map(|(at, _)| at).collect();
    found.into_iter().map(|at| source[at..].split("\n}").next().unwrap_or_default())
}

/// The names that a definition writes out, sorted.
fn written_out(definition: &str) -> Vec<&str> {
    let attributes = definition.split("#[serde(rename = \"").skip(1);
    let mut names: Vec<&str> = attributes.filter_map(|rest| rest.split('"').next()).collect();
    names.sort_unstable();
    names
}

/// Reads a value and notes the names in it.
#[derive(Clone, Copy)]
struct Noting<'a> {
    value: &'a Value,
    names: &'a Names,
}

impl<'a> Noting<'a> {
    fn keys(self) -> impl Iterator<Item = &'a str> {
        self.value.as_object().into_iter().flat_map(|object| object.keys().map(String::as_str))
    }
}

impl<'a> IntoDeserializer<'a, Error> for Noting<'a> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'a> serde::Deserializer<'a> for Noting<'a> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        let names = self.names;
        match self.value {
            Value::Array(values) => {
                let values = values.iter().map(|value| Noting { value, names });
                visitor.visit_seq(SeqDeserializer::new(values))
            }
            Value::Object(object) => {
                let entries = object.iter().map(|(key, value)| (key.as_str(), Noting { value, names }));
                visitor.visit_map(MapDeserializer::new(entries))
            }
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.names.add(name, fields, self.keys());
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let variant = self.value.as_str().or_else(|| self.keys().next()).unwrap_or_default();
        self.names.add(name, variants, std::iter::once(variant));
        let value = self.value.get(variant).unwrap_or(&Value::Null);
        visitor.visit_enum(Variant { of: name, variant, content: Noting { value, ..self } })
    }

    forward_to_deserialize_any! {
        <V: Visitor<'a>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

/// A variant and what is in it.
struct Variant<'a> {
    of: &'static str,
    variant: &'a str,
    content: Noting<'a>,
}

impl<'a> EnumAccess<'a> for Variant<'a> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'a>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name = IntoDeserializer::<Error>::into_deserializer(self.variant);
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'a> VariantAccess<'a> for Variant<'a> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'a>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.content)
    }

    fn tuple_variant<V: Visitor<'a>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        serde::Deserializer::deserialize_any(self.content, visitor)
    }

    fn struct_variant<V: Visitor<'a>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Self { of, variant, content } = self;
        content.names.add(&format!("{of}::{variant}"), fields, content.keys());
        serde::Deserializer::deserialize_any(content, visitor)
    }
}
