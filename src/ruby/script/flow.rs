//! Branches: which of them are taken, and under what condition.

use ruby_prism::{BeginNode, CaseNode, Node, StatementsNode, Visit as _};

use super::Reader;
use crate::ruby::condition::{Truth, fits, source};
use crate::ruby::deed::Condition;
use crate::ruby::finder::offset;
use crate::ruby::value::Value;

/// What is left for good, so that what follows in it is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    Block,
    Method,
}

/// A way out that may be taken, under conditions that do not hold of all that follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    left: Left,
    /// So many conditions there were.
    depth: usize,
}

impl<'p> Reader<'p> {
    /// What runs here may not run.
    pub fn maybe(&mut self, condition: Condition, run: impl FnOnce(&mut Self) -> Value) -> Value {
        let (value, departure) = self.attempt(condition, run);
        if departure.is_some() {
            self.depend(stays());
        }
        value
    }

    /// The same; whether it may leave what is around it, so that what follows depends on that.
    fn attempt(&mut self, condition: Condition, run: impl FnOnce(&mut Self) -> Value) -> (Value, Option<Departure>) {
        let before = self.conditions.len();
        let earlier = self.departure.take();
        self.depend(condition);
        let value = run(self);
        self.conditions.truncate(before);
        let departure = self.departure.take();
        // A block that is left as a whole is no matter for what is around it.
        let reaches = |departure: &Departure| departure.left == Left::Method || self.block_at < before;
        self.departure = earlier.or(departure.filter(reaches));
        (value, departure)
    }

    /// A block or a loop: what leaves it leaves no more.
    pub fn frame(&mut self, run: impl FnOnce(&mut Self) -> Value) -> Value {
        let before = self.conditions.len();
        let outer = std::mem::replace(&mut self.block_at, before);
        let earlier = self.departure.take();
        let value = run(self);
        self.block_at = outer;
        self.conditions.truncate(before);
        if self.left == Some(Left::Block) {
            self.left = None;
        }
        let departure = self.departure.take().filter(|departure| departure.left == Left::Method);
        if departure.is_some() {
            self.depend(stays());
        }
        self.departure = earlier.or(departure);
        value
    }

    fn frame_of(&self, left: Left) -> usize {
        match left {
            Left::Block => self.block_at,
            Left::Method => self.method_at,
        }
    }

    /// All that follows depends on this. What is not known weighs more than what is expected.
    fn depend(&mut self, condition: Condition) {
        let kept = match (condition, self.conditions.last()) {
            (Condition::Expected, Some(last)) => last.clone(),
            (condition, _) => condition,
        };
        self.conditions.push(kept);
    }

    pub fn control(&mut self, node: &Node<'p>) -> Value {
        if let Some(branch) = node.as_if_node() {
            let (then, other) = (branch.statements(), branch.subsequent());
            return self.branch(&branch.predicate(), then.map(|node| node.as_node()).as_ref(), other.as_ref());
        }
        if let Some(branch) = node.as_unless_node() {
            let (then, other) = (branch.statements(), branch.else_clause());
            let (then, other) = (then.map(|node| node.as_node()), other.map(|node| node.as_node()));
            return self.branch(&branch.predicate(), other.as_ref(), then.as_ref());
        }
        if let Some(clause) = node.as_else_node() {
            return self.statements(clause.statements().as_ref());
        }
        if let Some(case) = node.as_case_node() {
            return self.case(&case);
        }
        if let Some(begin) = node.as_begin_node() {
            return self.begin(&begin);
        }
        if let Some(either) = node.as_and_node() {
            return self.both(&either.left(), &either.right());
        }
        if let Some(either) = node.as_or_node() {
            return self.either(&either.left(), &either.right());
        }
        if let Some(rescue) = node.as_rescue_modifier_node() {
            let value = self.eval(&rescue.expression());
            let other = self.maybe(after_error("StandardError"), |reader| reader.eval(&rescue.rescue_expression()));
            return if value == other { value } else { Value::Unknown };
        }
        if let Some(repeat) = node.as_while_node() {
            return self.repeat(&repeat.predicate(), repeat.statements().as_ref(), true);
        }
        if let Some(repeat) = node.as_until_node() {
            return self.repeat(&repeat.predicate(), repeat.statements().as_ref(), false);
        }
        self.leave(node)
    }

    /// `return`, `next`, `break`.
    fn leave(&mut self, node: &Node<'p>) -> Value {
        let (left, given) = if let Some(back) = node.as_return_node() {
            (Left::Method, back.arguments())
        } else if let Some(next) = node.as_next_node() {
            (Left::Block, next.arguments())
        } else if let Some(stop) = node.as_break_node() {
            (Left::Block, stop.arguments())
        } else {
            return self.rest(node);
        };
        let given = given.iter().flat_map(|list| list.arguments().iter());
        let value = given.fold(Value::Nil, |_, node| self.eval(&node));
        if self.conditions.len() <= self.frame_of(left) {
            self.left = Some(left);
            return value;
        }
        // The way out that leads farthest counts.
        if self.departure.is_none_or(|known| known.left == Left::Block) {
            self.departure = Some(Departure { left, depth: self.conditions.len() });
        }
        if left == Left::Method {
            let same = self.returned.as_ref().is_none_or(|known| *known == value);
            self.returned = Some(if same { value.clone() } else { Value::Unknown });
        }
        value
    }

    /// A condition with what is done where it holds, and where it does not.
    fn branch(&mut self, predicate: &Node<'p>, then: Option<&Node<'p>>, other: Option<&Node<'p>>) -> Value {
        let value = self.eval(predicate);
        let truth = Truth::of(&value);
        match truth {
            Truth::Holds => return self.body(then),
            Truth::Fails => return self.body(other),
            Truth::Presence | Truth::Unknown => {}
        }
        let (holds, fails) = truth.conditions(predicate);
        let inside = self.conditions.len() + 1;
        let (value, by_then) = self.attempt(holds.clone(), |reader| reader.body(then));
        let (otherwise, by_other) = self.attempt(fails.clone(), |reader| reader.body(other));
        // For what follows a branch that leaves there is no branch left to stand.
        let is_plain = |departure: Departure| departure.depth == inside;
        match (by_then, by_other) {
            // `return if ...` before everything else: what follows is what the migration is for, and is expected to run.
            (Some(departure), None) | (None, Some(departure)) if is_plain(departure) && self.is_guard(departure) => {
                self.depend(Condition::Expected);
            }
            (Some(departure), None) if is_plain(departure) => self.depend(fails),
            (None, Some(departure)) if is_plain(departure) => self.depend(holds),
            (None, None) => {}
            _ => self.depend(stays()),
        }
        if value == otherwise { value } else { Value::Unknown }
    }

    /// Whether a way out stands before everything that the migration does.
    fn is_guard(&self, departure: Departure) -> bool {
        departure.left == Left::Method && self.out.changes.is_empty()
    }

    fn both(&mut self, left: &Node<'p>, right: &Node<'p>) -> Value {
        let value = self.eval(left);
        match Truth::of(&value) {
            Truth::Fails => value,
            Truth::Holds => self.eval(right),
            truth => {
                let (holds, _) = truth.conditions(left);
                let right = self.maybe(holds, |reader| reader.eval(right));
                truth.both(Truth::of(&right))
            }
        }
    }

    fn either(&mut self, left: &Node<'p>, right: &Node<'p>) -> Value {
        let value = self.eval(left);
        match Truth::of(&value) {
            Truth::Holds => value,
            Truth::Fails => self.eval(right),
            truth => {
                let (_, fails) = truth.conditions(left);
                let right = self.maybe(fails, |reader| reader.eval(right));
                truth.either(Truth::of(&right))
            }
        }
    }

    fn repeat(&mut self, predicate: &Node<'p>, body: Option<&StatementsNode<'p>>, wanted: bool) -> Value {
        let value = self.eval(predicate);
        let truth = Truth::of(&value);
        let (holds, fails) = truth.conditions(predicate);
        match (truth, wanted) {
            (Truth::Fails, true) | (Truth::Holds, false) => return Value::Nil,
            (Truth::Fails, false) | (Truth::Holds, true) => {
                self.maybe(Condition::Expected, |reader| reader.frame(|reader| reader.statements(body)))
            }
            (_, true) => self.maybe(holds, |reader| reader.frame(|reader| reader.statements(body))),
            (_, false) => self.maybe(fails, |reader| reader.frame(|reader| reader.statements(body))),
        };
        Value::Unknown
    }

    fn case(&mut self, case: &CaseNode<'p>) -> Value {
        let subject = case.predicate();
        let asked = subject.as_ref().map(|node| self.eval(node));
        let mut open = false;
        for when in case.conditions().iter().filter_map(|node| node.as_when_node()) {
            let mut truth = Truth::Fails;
            for condition in &when.conditions() {
                let said = self.eval(&condition);
                let one = match &asked {
                    Some(asked) => fits(&said, asked, self.engine).map_or(Truth::Unknown, truth_of),
                    None => Truth::of(&said),
                };
                truth = if truth == Truth::Fails || one == Truth::Holds { one } else { truth };
            }
            let body = when.statements();
            match truth {
                Truth::Fails => continue,
                Truth::Holds if !open => return self.statements(body.as_ref()),
                _ => {}
            }
            open = true;
            let conditions = when.conditions();
            let said = conditions.first().map(|node| source(&node)).unwrap_or_default();
            let condition = match (&subject, truth) {
                (_, Truth::Presence) => Condition::Expected,
                (Some(subject), _) => Condition::Unknown(format!("`{}` is `{said}`", source(subject))),
                (None, _) => Condition::Unknown(format!("`{said}` holds")),
            };
            self.maybe(condition, |reader| reader.statements(body.as_ref()));
            if truth == Truth::Holds {
                return Value::Unknown;
            }
        }
        let other = case.else_clause().and_then(|clause| clause.statements());
        if !open {
            return self.statements(other.as_ref());
        }
        let words = subject
            .map_or_else(|| "no `when` holds".to_owned(), |node| format!("`{}` is none of these", source(&node)));
        self.maybe(Condition::Unknown(words), |reader| reader.statements(other.as_ref()));
        Value::Unknown
    }

    fn begin(&mut self, begin: &BeginNode<'p>) -> Value {
        let mut value = self.statements(begin.statements().as_ref());
        // What is rescued came before its end, and what is ensured comes in any case.
        let left = self.left.take();
        let mut rescue = begin.rescue_clause();
        while let Some(clause) = rescue {
            let error = clause.exceptions().first().map_or_else(|| "StandardError".to_owned(), |node| source(&node));
            let other = self.maybe(after_error(&error), |reader| reader.statements(clause.statements().as_ref()));
            value = if value == other { value } else { Value::Unknown };
            rescue = clause.subsequent();
        }
        if let Some(clause) = begin.else_clause().filter(|_| left.is_none()) {
            value = self.statements(clause.statements().as_ref());
        }
        let before_end = std::mem::take(&mut self.left);
        self.statements(begin.ensure_clause().and_then(|clause| clause.statements()).as_ref());
        self.left = self.left.or(left).or(before_end);
        value
    }

    /// What is not followed, and has words of a migration in it.
    pub fn unfollowed(&mut self, node: &Node<'p>) {
        let mut words = super::Words::default();
        words.visit(node);
        if words.found {
            self.dynamic(offset(&node.location()), "this way of writing is not followed");
        }
    }
}

fn truth_of(holds: bool) -> Truth {
    if holds { Truth::Holds } else { Truth::Fails }
}

fn after_error(error: &str) -> Condition {
    Condition::Unknown(format!("`{error}` is rescued"))
}

/// Of what follows a way out that may have been taken.
fn stays() -> Condition {
    Condition::Unknown("nothing leaves before".to_owned())
}
