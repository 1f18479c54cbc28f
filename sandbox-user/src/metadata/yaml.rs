//! YAML documents.
//!
//! They are read as a stream of parser events into a flat arena, where an alias is a reference and
//! never a copy: whatever the rest of the document holds (tags, cycles, a few lines that stand for
//! gigabytes) costs no more than its own length and no stack. Only `id` and `sandbox` are then
//! followed, aliases and merge keys included, and what they may expand to is bounded.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_saphyr::granit_parser::{self as granit, Event, Parser, ScalarStyle, Tag};

use super::{ID, MAX_TABLE_DEPTH, SANDBOX};
use crate::document::{Entry, Spot, SyntaxError, Value};

/// Most keys and merges that `id` and `sandbox` may expand to.
const MAX_EXPANSION: usize = 10_000;

/// Most merge keys within one another.
const MAX_MERGE_DEPTH: usize = 16;

/// The top-level `id` and `sandbox`, each as often as it stands there.
pub(super) fn entries(text: &str) -> Result<Vec<Entry>, SyntaxError> {
    let arena = Arena::load(text)?;
    let Some(root) = arena.root else {
        return Ok(Vec::new());
    };
    let mut expansion = Expansion {
        arena: &arena,
        left: MAX_EXPANSION,
    };
    match &arena.node(root).kind {
        Kind::Mapping(_) => expansion.entries(root, MAX_TABLE_DEPTH - 1, 0),
        Kind::Scalar { .. } if expansion.value(root, 0)? == Value::Null => Ok(Vec::new()),
        Kind::Scalar { .. } | Kind::Sequence(_) | Kind::Alias(_) => Err(SyntaxError::new(
            Some(arena.node(root).spot),
            "the document must be a mapping of keys to values at its top level",
        )),
    }
}

/// Index of a node in the arena.
type NodeId = usize;

struct Node<'a> {
    spot: Spot,
    offset: usize,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Scalar {
        text: Cow<'a, str>,
        style: ScalarStyle,
        tag: Option<Cow<'a, Tag>>,
    },
    Sequence(Vec<NodeId>),
    Mapping(Vec<(NodeId, NodeId)>),
    Alias(NodeId),
}

struct Arena<'a> {
    nodes: Vec<Node<'a>>,
    root: Option<NodeId>,
}

/// A collection that is still open, and, in a mapping, the key that waits for its value.
struct Open {
    id: NodeId,
    key: Option<NodeId>,
}

impl<'a> Arena<'a> {
    fn load(text: &'a str) -> Result<Self, SyntaxError> {
        let options = granit::options! { emit_comments: false };
        let mut arena = Self {
            nodes: Vec::new(),
            root: None,
        };
        let mut anchors: HashMap<usize, NodeId> = HashMap::new();
        let mut open: Vec<Open> = Vec::new();
        let mut documents = 0;
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = event
                .map_err(|error| SyntaxError::new(Some(spot(error.marker())), error.kind()))?;
            let (spot, offset) = (spot(&span.start), span.start.byte_offset().unwrap_or(0));
            let (anchor, kind, opens) = match event {
                Event::Scalar(text, style, anchor, tag) => {
                    (anchor, Kind::Scalar { text, style, tag }, false)
                }
                Event::SequenceStart(_, anchor, _) => (anchor, Kind::Sequence(Vec::new()), true),
                Event::MappingStart(_, anchor, _) => (anchor, Kind::Mapping(Vec::new()), true),
                Event::Alias(anchor) => {
                    let target = anchors.get(&anchor).copied().ok_or_else(|| {
                        SyntaxError::new(Some(spot), "an alias of an anchor that is not known")
                    })?;
                    (0, Kind::Alias(target), false)
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    open.pop();
                    continue;
                }
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        let message = "there is more than one document in the file";
                        return Err(SyntaxError::new(Some(spot), message));
                    }
                    continue;
                }
                Event::StreamStart
                | Event::StreamEnd
                | Event::DocumentEnd
                | Event::Anchor(..)
                | Event::UnresolvedAlias(_)
                | Event::Comment(..) => continue,
                // The parser may learn events; one that carries nothing of ours cannot matter.
                _ => continue,
            };
            let id = arena.nodes.len();
            arena.nodes.push(Node { spot, offset, kind });
            if anchor != 0 {
                anchors.insert(anchor, id);
            }
            arena.attach(id, open.last_mut());
            if opens {
                open.push(Open { id, key: None });
            }
        }
        Ok(arena)
    }

    /// Makes a new node the child of the innermost open collection.
    fn attach(&mut self, child: NodeId, parent: Option<&mut Open>) {
        let Some(parent) = parent else {
            self.root = Some(child);
            return;
        };
        match &mut self.nodes[parent.id].kind {
            Kind::Sequence(items) => items.push(child),
            Kind::Mapping(pairs) => match parent.key.take() {
                Some(key) => pairs.push((key, child)),
                None => parent.key = Some(child),
            },
            // Neither is ever opened.
            Kind::Scalar { .. } | Kind::Alias(_) => {}
        }
    }

    fn node(&self, id: NodeId) -> &Node<'a> {
        &self.nodes[id]
    }

    /// The node itself, or what it is an alias of; that is never another alias.
    fn resolve(&self, id: NodeId) -> &Node<'a> {
        match self.node(id).kind {
            Kind::Alias(target) => self.node(target),
            Kind::Scalar { .. } | Kind::Sequence(_) | Kind::Mapping(_) => self.node(id),
        }
    }
}

/// Follows what is ours, as long as there is something left of what it may expand to.
struct Expansion<'a> {
    arena: &'a Arena<'a>,
    left: usize,
}

impl Expansion<'_> {
    /// The entries of a mapping, those of its merge keys last; at the top level only ours.
    fn entries(
        &mut self,
        id: NodeId,
        depth: usize,
        merges: usize,
    ) -> Result<Vec<Entry>, SyntaxError> {
        let node = self.arena.resolve(id);
        let Kind::Mapping(pairs) = &node.kind else {
            return Err(SyntaxError::new(
                Some(node.spot),
                "only mappings can be merged with `<<`",
            ));
        };
        let mut entries = Vec::new();
        let mut merged = Vec::new();
        for (key_id, value_id) in pairs {
            let Node { spot, offset, .. } = *self.arena.node(*key_id);
            let Kind::Scalar {
                text: key, style, ..
            } = &self.arena.resolve(*key_id).kind
            else {
                if depth == MAX_TABLE_DEPTH - 1 {
                    continue;
                }
                return Err(SyntaxError::new(Some(spot), "a key must be text"));
            };
            if key == "<<" && *style == ScalarStyle::Plain {
                self.spend(spot)?;
                if merges == MAX_MERGE_DEPTH {
                    let message = "merge keys (`<<`) stand too deep within one another";
                    return Err(SyntaxError::new(Some(spot), message));
                }
                let sources = match &self.arena.resolve(*value_id).kind {
                    Kind::Sequence(items) => items.as_slice(),
                    Kind::Scalar { .. } | Kind::Mapping(_) | Kind::Alias(_) => {
                        std::slice::from_ref(value_id)
                    }
                };
                for source in sources {
                    self.spend(spot)?;
                    merged.extend(self.entries(*source, depth, merges + 1)?);
                }
            } else if depth < MAX_TABLE_DEPTH - 1 || [ID, SANDBOX].contains(&key.as_ref()) {
                self.spend(spot)?;
                let value = self.value(*value_id, depth)?;
                entries.push(Entry {
                    key: key.to_string(),
                    offset,
                    value,
                });
            }
        }
        // The mapping's own keys win, then the earlier of the merged mappings.
        let mut known: HashSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
        entries.extend(
            merged
                .into_iter()
                .filter(|entry| known.insert(entry.key.clone())),
        );
        Ok(entries)
    }

    fn value(&mut self, id: NodeId, depth: usize) -> Result<Value, SyntaxError> {
        match &self.arena.resolve(id).kind {
            Kind::Scalar { text, style, tag } => Ok(scalar(text, *style, tag.as_deref())),
            Kind::Mapping(_) if depth == 0 => Ok(Value::Table(Vec::new())),
            Kind::Mapping(_) => Ok(Value::Table(self.entries(id, depth - 1, 0)?)),
            Kind::Sequence(_) | Kind::Alias(_) => {
                // None that is read here is a list.
                Ok(Value::List(Vec::new()))
            }
        }
    }

    fn spend(&mut self, spot: Spot) -> Result<(), SyntaxError> {
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            let message = "aliases and merge keys make this larger than 10,000 keys";
            SyntaxError::new(Some(spot), message)
        })?;
        Ok(())
    }
}

/// What a scalar stands for in the core schema of YAML 1.2; what only YAML 1.1 takes as true or
/// false (`yes`, `off` …) is taken so too, since it cannot be told which of them was meant.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    // `!` alone is the core schema's way to say text.
    let forced_text =
        tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str") || tag.to_string() == "!");
    if tag.is_some_and(|tag| !forced_text && !tag.is_yaml_core_schema()) {
        return Value::Tagged;
    }
    if forced_text || (style != ScalarStyle::Plain && tag.is_none()) {
        return Value::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        _ if ["true", "yes", "on"]
            .iter()
            .any(|word| text.eq_ignore_ascii_case(word)) =>
        {
            Value::Boolean(true)
        }
        _ if ["false", "no", "off"]
            .iter()
            .any(|word| text.eq_ignore_ascii_case(word)) =>
        {
            Value::Boolean(false)
        }
        _ if is_number(text) => Value::Number(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

/// Whether other readers would take a plain scalar as a number and so lose its spelling. `007` and
/// `1_000` are text here.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let all = |digits: &str, radix| !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    if let Some(digits) = unsigned.strip_prefix("0x") {
        return all(digits, 16);
    }
    if let Some(digits) = unsigned.strip_prefix("0o") {
        return all(digits, 8);
    }
    if [".inf", ".nan"]
        .iter()
        .any(|word| unsigned.eq_ignore_ascii_case(word))
    {
        return true;
    }
    let leading_zero = all(unsigned, 10) && unsigned.len() > 1 && unsigned.starts_with('0');
    let begins_well = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    // Beyond its beginning, YAML's floats are Rust's.
    !leading_zero && begins_well && unsigned.parse::<f64>().is_ok()
}

fn spot(marker: &granit::Marker) -> Spot {
    Spot {
        line: marker.line(),
        column: marker.col() + 1,
    }
}
