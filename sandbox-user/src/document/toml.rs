//! TOML documents. The parser bounds their nesting and refuses duplicate keys by itself.

use toml::de::{DeTable, DeValue};

use super::{Entry, Item, Spot, SyntaxError, Value};

/// The document's entries, tables and lists within it up to `depth`.
pub(crate) fn entries(text: &str, depth: usize) -> Result<Vec<Entry>, SyntaxError> {
    let document = DeTable::parse(text).map_err(|error| {
        let message = error.message().trim().replace('\n', ", ");
        let Some(span) = error.span() else {
            return SyntaxError::new(None, message);
        };
        // The parser says what is wrong with a key, but not which one it is.
        let part = text
            .get(span.clone())
            .filter(|part| !part.is_empty() && part.len() < 80);
        let part = part.map(|part| format!(": `{part}`")).unwrap_or_default();
        SyntaxError::new(Some(Spot::at(text, span.start)), format!("{message}{part}"))
    })?;
    Ok(table(document.get_ref(), depth))
}

/// The entries in the document's order, so that of two mistakes the first is told: the parser has
/// them by name.
fn table(table: &DeTable<'_>, depth: usize) -> Vec<Entry> {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, entry)| Entry {
            key: key.get_ref().to_string(),
            offset: key.span().start,
            value: value(entry.get_ref(), depth),
        })
        .collect();
    entries.sort_by_key(|entry| entry.offset);
    entries
}

fn value(parsed: &DeValue<'_>, depth: usize) -> Value {
    match parsed {
        DeValue::String(content) => Value::Text(content.to_string()),
        DeValue::Integer(number) => Value::Number(match number.radix() {
            10 => number.as_str().to_owned(),
            // What does not fit stays as it was written, and is refused for that.
            radix => u128::from_str_radix(number.as_str(), radix)
                .map_or_else(|_| number.to_string(), |number| number.to_string()),
        }),
        DeValue::Float(number) => Value::Number(number.as_str().to_owned()),
        DeValue::Boolean(state) => Value::Boolean(*state),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(_) if depth == 0 => Value::List(Vec::new()),
        DeValue::Array(content) => Value::List(
            content
                .iter()
                .map(|item| Item {
                    offset: item.span().start,
                    value: value(item.get_ref(), depth - 1),
                })
                .collect(),
        ),
        DeValue::Table(_) if depth == 0 => Value::Table(Vec::new()),
        DeValue::Table(content) => Value::Table(table(content, depth - 1)),
    }
}
