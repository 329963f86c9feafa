//! The values of the part of Ruby that is read, and the arguments of a call.

/// So much text is as dear as one expression.
pub const BYTES_PER_STEP: usize = 32;

/// What stands for an unknown part of a text: in SQL a value that is given later.
pub const HOLE: &str = "$1";

/// What an expression stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    /// A string, a symbol, a fraction as it is written.
    Text(String),
    /// A text with a [`HOLE`] for each part of it that is not known.
    Template(String),
    List(Vec<Value>),
    Map(Vec<(Value, Value)>),
    /// A lambda, with the text that it gives where that is a literal.
    Code(Option<String>),
    /// The `t` of `create_table` and `change_table`.
    Table(Option<String>),
    /// The `dir` of `reversible`.
    Direction,
    /// A database connection.
    Connection,
    /// A constant that is not defined in the file, or a class.
    Constant(String),
    /// Rows of a model: a relation or a record. Its table is not always known.
    Rows(Option<String>),
    /// A method by its name: `method(:drop)`, `&:to_s`.
    Method(String),
    /// A regular expression, as it is written.
    Pattern(String),
    /// `Rails.env`.
    Environment,
    /// What a connection calls its engine.
    Adapter,
    /// What the database has: whether something is there is not known here.
    Presence,
    Unknown,
}

impl Value {
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Int(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// One name, or a list of names.
    pub fn texts(&self) -> Option<Vec<String>> {
        match self {
            Self::List(list) => list.iter().map(Self::text).collect(),
            value => value.text().map(|text| vec![text]),
        }
    }

    /// What a copy of it costs, all that it holds included, in steps of the reader.
    pub fn weight(&self) -> usize {
        match self {
            Self::Text(text) | Self::Template(text) => text.len() / BYTES_PER_STEP,
            Self::List(list) => list.iter().map(|item| 1 + item.weight()).sum(),
            Self::Map(pairs) => pairs.iter().map(|(key, value)| 1 + key.weight() + value.weight()).sum(),
            _ => 0,
        }
    }

    pub fn is_true(&self) -> bool {
        !matches!(self, Self::Nil | Self::Bool(false))
    }
}

/// What a call was given.
#[derive(Debug, Default, Clone)]
pub struct Args {
    pub list: Vec<Value>,
    pub options: Vec<(String, Value)>,
    /// Something was passed on that cannot be told apart: `*args`, `**options`.
    pub open: bool,
}

impl Args {
    pub fn text(&self, index: usize) -> Option<String> {
        self.list.get(index)?.text()
    }

    pub fn option(&self, name: &str) -> Option<&Value> {
        self.options.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    pub fn is_set(&self, name: &str) -> bool {
        self.option(name).is_some_and(Value::is_true)
    }

    pub fn is(&self, name: &str, value: &str) -> bool {
        self.option(name).and_then(Value::text).is_some_and(|text| text == value)
    }

    pub fn is_false(&self, name: &str) -> bool {
        self.option(name) == Some(&Value::Bool(false))
    }

    /// The option is there, and nobody knows what it says.
    pub fn is_unknown(&self, name: &str) -> bool {
        use Value::{Bool, Code, Int, List, Map, Nil, Text};
        let says = |value: &Value| matches!(value, Nil | Bool(_) | Int(_) | Text(_) | List(_) | Map(_) | Code(_));
        self.option(name).is_some_and(|value| !says(value))
    }

    /// The options that stand as a hash below `name`.
    pub fn below(&self, name: &str) -> Self {
        let options = match self.option(name) {
            Some(Value::Map(pairs)) => {
                pairs.iter().filter_map(|(key, value)| Some((key.text()?, value.clone()))).collect()
            }
            _ => Vec::new(),
        };
        Self { options, ..Self::default() }
    }

    /// With `value` put before all others.
    pub fn behind(&self, value: Value) -> Self {
        let mut args = self.clone();
        args.list.insert(0, value);
        args
    }
}
