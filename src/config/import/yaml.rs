//! A YAML document as a tree whose values know their line.
//!
//! What the libraries of OnionBalance and GoBalance read of it: maps, lists and texts. Aliases are
//! refused, since a few of them can stand for a tree that fits no memory.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::config::problem::Problem;
use crate::limits::YAML_DEPTH_MAX;

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// Line in the file, from 1.
    pub line: usize,
    /// What stands there.
    pub value: Value,
}

/// What can stand in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing, or a word for it.
    Null,
    /// A text, a number, a truth value: as it was typed.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file.
    Map(Vec<Entry>),
}

/// A key of a map with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The key.
    pub key: String,
    /// Its line.
    pub line: usize,
    /// Its value.
    pub value: Node,
}

impl Value {
    /// What it is, for a sentence.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// A list or map whose end has not come yet.
enum Open {
    /// A list.
    List(usize, Vec<Node>),
    /// A map, and the key whose value comes next.
    Map(usize, Vec<Entry>, Option<(String, usize)>),
}

/// What has been read so far.
#[derive(Default)]
struct Tree {
    /// From the outermost inwards.
    open: Vec<Open>,
    /// The document, once it is there.
    root: Option<Node>,
}

/// Read a text with one document. An empty one is [`Value::Null`].
///
/// # Errors
/// The first mistake.
pub(super) fn read(text: &str) -> Result<Node, Problem> {
    let mut tree = Tree::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let reason = format!("this is not YAML ({})", error.info());
            Problem::at(error.marker().line(), "", reason, "correct the line")
        })?;
        tree.take(event, span)?;
    }
    Ok(tree.root.unwrap_or(Node { line: 1, value: Value::Null }))
}

impl Tree {
    /// The next event.
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let line = span.start.line();
        let refused = |reason: &str, fix: &str| Err(Problem::at(line, "", reason, fix));
        if let Event::Scalar(_, _, _, Some(tag))
        | Event::SequenceStart(_, Some(tag))
        | Event::MappingStart(_, Some(tag)) = &event
            && !tag.is_yaml_core_schema()
        {
            return refused("a tag of a program's own has no meaning here", "take it out");
        }
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                return refused("a second document begins here", "keep one document in the file");
            }
            Event::Alias(_) => {
                return refused("an alias (`*name`) is not read here", "write the value out");
            }
            Event::Scalar(text, style, ..) => {
                let plain = matches!(style, ScalarStyle::Plain);
                let value = match &*text {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                    text => Value::Text(text.to_owned()),
                };
                return self.put(Node { line, value });
            }
            Event::SequenceStart(..) => self.open.push(Open::List(line, Vec::new())),
            Event::MappingStart(..) => self.open.push(Open::Map(line, Vec::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => {
                let node = match self.open.pop() {
                    Some(Open::List(line, list)) => Node { line, value: Value::List(list) },
                    Some(Open::Map(line, map, _)) => Node { line, value: Value::Map(map) },
                    None => return refused("something ends here that has not begun", "correct it"),
                };
                return self.put(node);
            }
            Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::StreamStart
            | Event::StreamEnd
            | Event::Nothing => {}
        }
        if self.open.len() > YAML_DEPTH_MAX {
            return refused("lists and maps are nested too deep here", "write it flatter");
        }
        Ok(())
    }

    /// A value is complete: it goes where one is expected.
    fn put(&mut self, node: Node) -> Result<(), Problem> {
        let Node { line, .. } = node;
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(_, list)) => list.push(node),
            Some(Open::Map(_, map, key)) => match (key.take(), node.value) {
                (Some((key, line)), value) => {
                    map.push(Entry { key, line, value: Node { line: node.line, value } });
                }
                (None, Value::Text(text)) => {
                    if map.iter().any(|entry| entry.key == text) {
                        let reason = "this key is in the map already";
                        return Err(Problem::at(line, &text, reason, "write it once"));
                    }
                    *key = Some((text, line));
                }
                (None, value) => {
                    let reason = format!("{} is no name of a key", value.kind());
                    return Err(Problem::at(line, "", reason, "write a text before the colon"));
                }
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Value, read};
    use crate::limits::YAML_DEPTH_MAX;

    #[test]
    fn values_know_their_lines() {
        let node = read("# a comment\nservices:\n- key: a.key\n  n: ~\n- 'x: y'\n").expect("YAML");
        let Value::Map(map) = node.value else { panic!("a map") };
        assert_eq!((map[0].key.as_str(), map[0].line), ("services", 2));
        let Value::List(list) = &map[0].value.value else { panic!("a list") };
        assert_eq!([list[0].line, list[1].line], [3, 5]);
        let Value::Map(first) = &list[0].value else { panic!("a map") };
        assert_eq!(first[0].value.value, Value::Text("a.key".to_owned()));
        assert_eq!((first[1].line, &first[1].value.value), (4, &Value::Null));
        assert_eq!(list[1].value, Value::Text("x: y".to_owned()));
        assert_eq!(read("").expect("nothing").value, Value::Null);
    }

    #[test]
    fn what_cannot_be_read_has_a_line_and_takes_no_memory() {
        let line = |text: &str| read(text).expect_err(text).line;
        assert_eq!(line("a: 1\na: 2\n"), Some(2));
        assert_eq!(line("a: &x 1\nb: *x\n"), Some(2));
        assert_eq!(line("a: 1\n---\nb: 2\n"), Some(2));
        assert_eq!(line("a: !python/object 1\n"), Some(1));
        assert_eq!(line("? [a]\n: 1\n"), Some(1));
        assert!(line("a: [1\nb: 2\n").is_some());
        assert!(line("a:\n\t- b\n").is_some());
        for nested in [YAML_DEPTH_MAX + 1, 100_000] {
            assert!(read(&format!("{}1", "[".repeat(nested))).is_err());
            assert!(read(&"- ".repeat(nested)).is_err());
        }
    }
}
