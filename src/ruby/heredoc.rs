//! Where the text of a heredoc stands in its file, line by line: `<<~` takes the indentation away.

use ruby_prism::{CallNode, Node, StringNode};

use super::deed::Deed;
use super::finder::offset;
use super::sql;
use crate::rails::Engine;

/// Offsets in the text with those in the file, ascending.
pub struct Heredoc {
    text: String,
    lines: Vec<(usize, usize)>,
}

impl Heredoc {
    /// The heredoc that is a call's first argument, as it is or in one line: `<<~SQL.squish`. None where something is put into it.
    pub fn of(call: &CallNode) -> Option<Self> {
        let argument = call.arguments()?.arguments().first()?;
        match argument.as_call_node() {
            Some(plain) if plain.arguments().is_none() => Self::read(&plain.receiver()?),
            Some(_) => None,
            None => Self::read(&argument),
        }
    }

    fn read(node: &Node) -> Option<Self> {
        let mut heredoc = Self { text: String::new(), lines: Vec::new() };
        if let Some(one) = node.as_string_node() {
            opens(one.opening_loc())?;
            heredoc.push(&one)?;
        } else {
            let several = node.as_interpolated_string_node()?;
            opens(several.opening_loc())?;
            for part in &several.parts() {
                heredoc.push(&part.as_string_node()?)?;
            }
        }
        Some(heredoc)
    }

    fn push(&mut self, part: &StringNode) -> Option<()> {
        let (place, text) = (part.content_loc(), str::from_utf8(part.unescaped()).ok()?);
        let source = str::from_utf8(place.as_slice()).ok()?;
        let begin = if source.ends_with(text) {
            source.len() - text.len()
        } else if source.trim_end().contains('\n') {
            // Something is escaped in one of these lines.
            return None;
        } else {
            source.len() - source.trim_start().len()
        };
        self.lines.push((self.text.len(), offset(&place) + begin));
        self.text.push_str(text);
        Some(())
    }

    /// What each statement does, with the place where it begins in the file.
    pub fn deeds(&self, engine: Engine) -> Vec<(usize, Deed)> {
        let mut deeds = Vec::new();
        for (begin, statement) in sql::statements(&self.text, engine) {
            deeds.extend(sql::deeds(statement, engine).into_iter().map(|deed| (self.place(begin), deed)));
        }
        deeds
    }

    /// Where in the file a byte of the text stands.
    fn place(&self, at: usize) -> usize {
        let line = self.lines.partition_point(|(from, _)| *from <= at).saturating_sub(1);
        self.lines.get(line).map_or(0, |(from, place)| place + at - from)
    }
}

fn opens(opening: Option<ruby_prism::Location>) -> Option<()> {
    opening.filter(|opening| opening.as_slice().starts_with(b"<<")).map(|_| ())
}
