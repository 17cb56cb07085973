//! Walks a parsed TOML document and takes out values with their lines, noting every wrong type and
//! every unknown key instead of stopping at the first.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Problem;
use super::schema::{self, Table};

/// A value with the place where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At<T> {
    /// What was typed.
    pub value: T,
    /// Line in the file, from 1.
    pub line: usize,
    /// The key's path.
    pub key: String,
}

impl<T> At<T> {
    /// A problem with this value.
    pub(super) fn problem(&self, reason: impl Into<String>, fix: impl Into<String>) -> Problem {
        Problem::at(self.line, &self.key, reason, fix)
    }

    /// Another value at the same place.
    pub(super) fn with<U>(&self, value: U) -> At<U> {
        At { value, line: self.line, key: self.key.clone() }
    }
}

/// A value of the simple types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    /// A number.
    Integer(i64),
    /// A text.
    Text(String),
}

/// The text of a document and what was found wrong in it.
#[derive(Debug)]
pub(super) struct Document<'i> {
    /// The file's contents.
    text: &'i str,
    /// What is wrong, in the order found.
    pub problems: Vec<Problem>,
}

impl<'i> Document<'i> {
    /// A document with no problems found yet.
    pub(super) fn new(text: &'i str) -> Document<'i> {
        Document { text, problems: Vec::new() }
    }

    /// The line, from 1, at a byte of the text.
    pub(super) fn line(&self, byte: usize) -> usize {
        let before = self.text.as_bytes().get(..byte).unwrap_or(self.text.as_bytes());
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// Note a wrong type.
    fn wrong_type(&mut self, value: &At<&DeValue<'i>>, wanted: &str) {
        let found = value.value.type_str();
        self.problems.push(
            value.problem(format!("this is a value of type {found}"), format!("write {wanted}")),
        );
    }
}

/// One table that is being read.
#[derive(Debug)]
pub(super) struct TableReader<'t, 'i> {
    /// Its keys.
    table: &'t DeTable<'i>,
    /// What keys it may have.
    schema: &'static Table,
    /// Path of the table; empty for the top.
    pub key: String,
    /// Line of its heading.
    pub line: usize,
}

impl<'t, 'i> TableReader<'t, 'i> {
    /// The top of a document.
    pub(super) fn top(table: &'t DeTable<'i>, document: &mut Document<'i>) -> TableReader<'t, 'i> {
        TableReader::new(table, &schema::TOP, String::new(), 1, document)
    }

    /// A table; its unknown keys are noted at once.
    fn new(
        table: &'t DeTable<'i>,
        schema: &'static Table,
        key: String,
        line: usize,
        document: &mut Document<'i>,
    ) -> TableReader<'t, 'i> {
        let reader = TableReader { table, schema, key, line };
        for name in table.keys() {
            let text: &str = name.get_ref();
            if !schema.keys.contains(&text) {
                let line = document.line(name.span().start);
                let advice = schema::advice(schema, text);
                let problem = Problem::at(line, &reader.path(text), "there is no such key", advice);
                document.problems.push(problem);
            }
        }
        reader
    }

    /// The path of one of this table's keys.
    pub(super) fn path(&self, name: &str) -> String {
        if self.key.is_empty() { name.to_owned() } else { format!("{}.{name}", self.key) }
    }

    /// The value of a key, if it was typed.
    fn value(&self, name: &str, document: &Document<'i>) -> Option<At<&'t DeValue<'i>>> {
        debug_assert!(self.schema.keys.contains(&name), "{name} is missing in the schema");
        let (key, value) = self.table.get_key_value(name)?;
        let line = document.line(key.span().start);
        Some(At { value: value.get_ref(), line, key: self.path(name) })
    }

    /// A text.
    pub(super) fn text(&self, name: &str, document: &mut Document<'i>) -> Option<At<String>> {
        let value = self.value(name, document)?;
        match value.value.as_str() {
            Some(text) => Some(value.with(text.to_owned())),
            None => {
                document.wrong_type(&value, "a text in quotes");
                None
            }
        }
    }

    /// A whole number.
    pub(super) fn integer(&self, name: &str, document: &mut Document<'i>) -> Option<At<i64>> {
        let value = self.value(name, document)?;
        let number = integer(&value);
        if number.is_none() {
            document.wrong_type(&value, "a whole number");
        }
        number
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, name: &str, document: &mut Document<'i>) -> Option<At<bool>> {
        let value = self.value(name, document)?;
        match value.value.as_bool() {
            Some(boolean) => Some(value.with(boolean)),
            None => {
                document.wrong_type(&value, "true or false");
                None
            }
        }
    }

    /// A whole number or a text.
    pub(super) fn scalar(
        &self,
        name: &str,
        wanted: &str,
        document: &mut Document<'i>,
    ) -> Option<At<Scalar>> {
        let value = self.value(name, document)?;
        if let Some(text) = value.value.as_str() {
            return Some(value.with(Scalar::Text(text.to_owned())));
        }
        let number = integer(&value);
        if number.is_none() {
            document.wrong_type(&value, wanted);
        }
        number.map(|number| number.with(Scalar::Integer(number.value)))
    }

    /// A list of whole numbers.
    pub(super) fn integers(
        &self,
        name: &str,
        document: &mut Document<'i>,
    ) -> Option<At<Vec<At<i64>>>> {
        let value = self.value(name, document)?;
        let elements = self.elements(&value, "a list of whole numbers, as in [2, 3]", document)?;
        let mut numbers = Vec::new();
        for element in elements {
            match integer(&element) {
                Some(number) => numbers.push(number),
                None => document.wrong_type(&element, "a whole number"),
            }
        }
        Some(value.with(numbers))
    }

    /// A list of texts.
    pub(super) fn texts(
        &self,
        name: &str,
        document: &mut Document<'i>,
    ) -> Option<At<Vec<At<String>>>> {
        let value = self.value(name, document)?;
        let elements = self.elements(&value, "a list of texts, as in [\"a\", \"b\"]", document)?;
        let mut texts = Vec::new();
        for element in elements {
            match element.value.as_str() {
                Some(text) => texts.push(element.with(text.to_owned())),
                None => document.wrong_type(&element, "a text in quotes"),
            }
        }
        Some(value.with(texts))
    }

    /// A list whose elements are texts, or tables with keys of `schema`.
    pub(super) fn texts_or_tables(
        &self,
        name: &str,
        schema: &'static Table,
        document: &mut Document<'i>,
    ) -> Option<At<Vec<TextOrTable<'t, 'i>>>> {
        let value = self.value(name, document)?;
        let wanted = "a list, as in [\"127.0.0.1:8080\"]";
        let mut found = Vec::new();
        for element in self.elements(&value, wanted, document)? {
            if let Some(text) = element.value.as_str() {
                found.push(TextOrTable::Text(element.with(text.to_owned())));
            } else if let Some(table) = element.value.as_table() {
                let (key, line) = (element.key, element.line);
                let table = TableReader::new(table, schema, key, line, document);
                found.push(TextOrTable::Table(table));
            } else {
                document.wrong_type(&element, "an address in quotes");
            }
        }
        Some(value.with(found))
    }

    /// A table `[name]`.
    pub(super) fn table(
        &self,
        name: &str,
        schema: &'static Table,
        document: &mut Document<'i>,
    ) -> Option<TableReader<'t, 'i>> {
        let value = self.value(name, document)?;
        match value.value.as_table() {
            Some(table) => Some(TableReader::new(table, schema, value.key, value.line, document)),
            None => {
                let wanted = format!("a table with the heading [{}]", self.path(name));
                document.wrong_type(&value, &wanted);
                None
            }
        }
    }

    /// Tables `[[name]]`, each with its place in the path, as in `service[0]`.
    pub(super) fn tables(
        &self,
        name: &str,
        schema: &'static Table,
        document: &mut Document<'i>,
    ) -> Vec<TableReader<'t, 'i>> {
        let Some(value) = self.value(name, document) else { return Vec::new() };
        let wanted = format!("a table with the heading {}", schema.heading);
        let Some(elements) = self.elements(&value, &wanted, document) else { return Vec::new() };
        let mut tables = Vec::new();
        for element in elements {
            match element.value.as_table() {
                Some(table) => {
                    let (key, line) = (element.key, element.line);
                    tables.push(TableReader::new(table, schema, key, line, document));
                }
                None => document.wrong_type(&element, &wanted),
            }
        }
        tables
    }

    /// `true` if the key is a table or is not there; what is in it is another's to read.
    pub(super) fn is_table_or_absent(&self, name: &str, document: &mut Document<'i>) -> bool {
        let Some(value) = self.value(name, document) else { return true };
        let is_table = value.value.is_table();
        if !is_table {
            document.wrong_type(&value, &format!("a table with the heading [{name}]"));
        }
        is_table
    }

    /// The elements of a list, each with its own line and its place in the path.
    fn elements(
        &self,
        value: &At<&'t DeValue<'i>>,
        wanted: &str,
        document: &mut Document<'i>,
    ) -> Option<Vec<At<&'t DeValue<'i>>>> {
        let Some(array) = value.value.as_array() else {
            document.wrong_type(value, wanted);
            return None;
        };
        let place = |(index, element): (usize, &'t Spanned<DeValue<'i>>)| At {
            value: element.get_ref(),
            line: document.line(element.span().start),
            key: format!("{}[{index}]", value.key),
        };
        Some(array.iter().enumerate().map(place).collect())
    }
}

/// An element of a list that has a short and a long form.
#[derive(Debug)]
pub(super) enum TextOrTable<'t, 'i> {
    /// The short form.
    Text(At<String>),
    /// The long form.
    Table(TableReader<'t, 'i>),
}

/// The whole number that a value is. One that does not fit 64 bits becomes the largest that does:
/// every range check refuses it.
fn integer(value: &At<&DeValue<'_>>) -> Option<At<i64>> {
    let number = value.value.as_integer()?;
    let beyond = if number.as_str().starts_with('-') { i64::MIN } else { i64::MAX };
    let parsed = i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(beyond);
    Some(value.with(parsed))
}
