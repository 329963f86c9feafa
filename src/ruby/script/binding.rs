//! What the parameters of methods and blocks stand for.

use ruby_prism::{BlockNode, Node, ParametersNode};

use super::Reader;
use crate::ruby::finder::name;
use crate::ruby::value::{Args, Value};

/// Names and what they stand for.
pub type Bound = Vec<(String, Value)>;

impl<'p> Reader<'p> {
    /// The parameters of a method or a block.
    pub fn parameters(&mut self, parameters: &ParametersNode<'p>, args: Args) -> Bound {
        let mut bound = Bound::new();
        let (open, mut given) = (args.open, args.list);
        let behind = parameters.posts().iter().count();
        let last = given.split_off(given.len() - behind.min(given.len()));
        let mut given = given.into_iter();
        let missing = || if open { Value::Unknown } else { Value::Nil };
        for parameter in &parameters.requireds() {
            take_apart(&parameter, given.next().unwrap_or(Value::Unknown), &mut bound);
        }
        for parameter in &parameters.optionals() {
            if let Some(one) = parameter.as_optional_parameter_node() {
                let value = match given.next() {
                    Some(value) => value,
                    None if open => Value::Unknown,
                    None => self.eval(&one.value()),
                };
                bound.push((name(one.name().as_slice()), value));
            }
        }
        if let Some(rest) = parameters.rest().and_then(|rest| rest.as_rest_parameter_node()?.name()) {
            let value = if open { Value::Unknown } else { Value::List(given.collect()) };
            bound.push((name(rest.as_slice()), value));
        }
        for (parameter, value) in parameters.posts().iter().zip(last) {
            take_apart(&parameter, value, &mut bound);
        }
        let mut options = args.options;
        let mut take = |key: &str| {
            let at = options.iter().rposition(|(name, _)| name == key)?;
            Some(options.remove(at).1)
        };
        for parameter in &parameters.keywords() {
            if let Some(one) = parameter.as_required_keyword_parameter_node() {
                let key = name(one.name().as_slice());
                let value = take(&key).unwrap_or(Value::Unknown);
                bound.push((key, value));
            } else if let Some(one) = parameter.as_optional_keyword_parameter_node() {
                let key = name(one.name().as_slice());
                let value = match take(&key) {
                    Some(value) => value,
                    None if open => Value::Unknown,
                    None => self.eval(&one.value()),
                };
                bound.push((key, value));
            }
        }
        if let Some(rest) = parameters.keyword_rest().and_then(|rest| rest.as_keyword_rest_parameter_node()?.name()) {
            let pairs = options.into_iter().map(|(key, value)| (Value::Text(key), value)).collect();
            bound.push((name(rest.as_slice()), if open { Value::Unknown } else { Value::Map(pairs) }));
        }
        if let Some(block) = parameters.block().and_then(|block| block.as_block_parameter_node()?.name()) {
            bound.push((name(block.as_slice()), missing()));
        }
        bound
    }

    /// The parameters of a block: its own names, numbers, or `it`.
    pub fn block_parameters(&mut self, block: &BlockNode<'p>, mut values: Vec<Value>) -> Bound {
        let Some(parameters) = block.parameters() else { return Bound::new() };
        if parameters.as_it_parameters_node().is_some() {
            return vec![("it".to_owned(), values.into_iter().next().unwrap_or(Value::Unknown))];
        }
        if let Some(numbers) = parameters.as_numbered_parameters_node() {
            let count = numbers.maximum();
            spread(&mut values, count > 1);
            let mut values = values.into_iter();
            return (1..=count).map(|number| (format!("_{number}"), values.next().unwrap_or(Value::Unknown))).collect();
        }
        let Some(own) = parameters.as_block_parameters_node() else { return Bound::new() };
        let mut bound = own.parameters().map_or_else(Bound::new, |list| {
            let count = list.requireds().iter().count() + list.optionals().iter().count() + list.posts().iter().count();
            spread(&mut values, count > 1 || (count == 1 && list.rest().is_some()));
            self.parameters(&list, Args { list: values, ..Args::default() })
        });
        let locals = own.locals();
        let locals =
            locals.iter().filter_map(|node| Some(name(node.as_block_local_variable_node()?.name().as_slice())));
        bound.extend(locals.map(|name| (name, Value::Nil)));
        bound
    }

    /// Runs with these names, and gives those of the same name back to what is around.
    pub fn with_bound(&mut self, bound: Bound, run: impl FnOnce(&mut Self) -> Value) -> Value {
        let mut hidden = Vec::with_capacity(bound.len());
        for (name, value) in bound {
            let old = self.locals.insert(name.clone(), value);
            hidden.push((name, old));
        }
        let value = run(self);
        for (name, old) in hidden.into_iter().rev() {
            match old {
                Some(old) => self.locals.insert(name, old),
                None => self.locals.remove(&name),
            };
        }
        value
    }
}

/// `|a, b|` takes an array apart.
fn spread(values: &mut Vec<Value>, several: bool) {
    if several && matches!(values.as_slice(), [Value::List(_)]) {
        let Some(Value::List(inner)) = values.pop() else { return };
        *values = inner;
    }
}

/// A parameter, which may be a pattern such as `(a, b)`.
fn take_apart(parameter: &Node, value: Value, bound: &mut Bound) {
    if let Some(one) = parameter.as_required_parameter_node() {
        bound.push((name(one.name().as_slice()), value));
    } else if let Some(several) = parameter.as_multi_target_node() {
        let mut values = if let Value::List(list) = value { list } else { Vec::new() }.into_iter();
        for target in &several.lefts() {
            take_apart(&target, values.next().unwrap_or(Value::Unknown), bound);
        }
        if let Some(rest) = several.rest().and_then(|rest| rest.as_splat_node()?.expression()) {
            take_apart(&rest, Value::Unknown, bound);
        }
        for target in &several.rights() {
            take_apart(&target, Value::Unknown, bound);
        }
    }
}
