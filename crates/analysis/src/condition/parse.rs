//! A condition as a tree. Precedence as in expr-lang 1.17.

use std::ops::Range;

use super::BadCondition;
use super::lex::{Token, Word, words};
use super::types::FUNCTIONS;

/// Nested deeper than this nobody writes by hand.
const DEPTH_MAX: usize = 64;

/// A part of a condition and where it stands, in bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expr {
    pub(super) node: Node,
    pub(super) at: Range<usize>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// The measured value.
    Result,
    /// The element that a function looks at: `#`.
    Element,
    /// Its place: `#index`.
    Place,
    List(Vec<Expr>),
    Map(Vec<(String, Expr)>),
    /// `of[key]`, `of.key`; with `?.` nothing of nothing is nothing.
    Member {
        of: Box<Expr>,
        key: Box<Expr>,
        is_optional: bool,
    },
    Slice {
        of: Box<Expr>,
        from: Option<Box<Expr>>,
        to: Option<Box<Expr>>,
    },
    Not(Box<Expr>),
    Minus(Box<Expr>),
    Plus(Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    If(Box<Expr>, Box<Expr>, Box<Expr>),
    Call {
        name: &'static str,
        args: Vec<Expr>,
        /// What is asked of each element.
        each: Option<Box<Expr>>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    Below,
    AtMost,
    Above,
    AtLeast,
    In,
    NotIn,
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
    OrElse,
}

impl Operator {
    /// As it is written.
    pub(super) fn sign(self) -> &'static str {
        OPERATORS.iter().find(|(_, operator, _)| *operator == self).map_or("not in", |(sign, _, _)| sign)
    }
}

const OPERATORS: [(&str, Operator, u8); 23] = [
    ("||", Operator::Or, 10),
    ("or", Operator::Or, 10),
    ("&&", Operator::And, 15),
    ("and", Operator::And, 15),
    ("==", Operator::Equal, 20),
    ("!=", Operator::NotEqual, 20),
    ("<", Operator::Below, 20),
    ("<=", Operator::AtMost, 20),
    (">", Operator::Above, 20),
    (">=", Operator::AtLeast, 20),
    ("in", Operator::In, 20),
    ("contains", Operator::Contains, 20),
    ("startsWith", Operator::StartsWith, 20),
    ("endsWith", Operator::EndsWith, 20),
    ("matches", Operator::Matches, 20),
    ("+", Operator::Add, 30),
    ("-", Operator::Subtract, 30),
    ("*", Operator::Multiply, 60),
    ("/", Operator::Divide, 60),
    ("%", Operator::Remainder, 60),
    ("**", Operator::Power, 100),
    ("^", Operator::Power, 100),
    ("??", Operator::OrElse, 200),
];

const NOT: u8 = 50;
const SIGNED: u8 = 90;

/// Reads a condition.
pub(super) fn parse(text: &str) -> Result<Expr, BadCondition> {
    let mut parser = Parser { tokens: words(text)?, next: 0, depth: 0, inside: 0 };
    let expr = parser.expression(0)?;
    match parser.peek() {
        Word::End => Ok(expr),
        other => {
            let what = format!("{} is not expected here", shown(other));
            let help = match other {
                Word::Sign("=") => "write `==` to compare",
                Word::Sign("..") => "ranges are not supported",
                Word::Int(_) | Word::Float(_) | Word::Name(_) | Word::Text(_) => {
                    "an operator is missing before it, such as `>=` or `&&`"
                }
                Word::Sign(_) | Word::End => "the condition is over before it",
            };
            Err(BadCondition::new(what, help, parser.place()))
        }
    }
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
    /// In how many functions that look at elements.
    inside: usize,
}

impl Parser {
    fn peek(&self) -> &Word {
        &self.tokens[self.next].what
    }

    fn place(&self) -> Range<usize> {
        self.tokens[self.next].at.clone()
    }

    fn take(&mut self) -> Word {
        let word = self.tokens[self.next].what.clone();
        // The last one is the end, and is never passed.
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        word
    }

    fn has(&mut self, sign: &str) -> bool {
        let is = matches!(self.peek(), Word::Sign(found) if *found == sign);
        if is {
            self.take();
        }
        is
    }

    fn expect(&mut self, sign: &'static str, after: &str) -> Result<(), BadCondition> {
        if self.has(sign) {
            return Ok(());
        }
        let what = format!("`{sign}` is missing after {after}, there is {}", shown(self.peek()));
        Err(BadCondition::new(what, "close it", self.place()))
    }

    fn end_of_last(&self) -> usize {
        self.tokens[self.next.saturating_sub(1)].at.end
    }

    fn boxed(&self, node: Node, start: usize) -> Box<Expr> {
        Box::new(self.expr(node, start))
    }

    fn expr(&self, node: Node, start: usize) -> Expr {
        Expr { node, at: start..self.end_of_last() }
    }

    /// An expression of operators that bind at least as strongly.
    fn expression(&mut self, precedence: u8) -> Result<Expr, BadCondition> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let what = format!("this is nested more than {DEPTH_MAX} levels deep");
            return Err(BadCondition::new(what, "split it into several checks", self.place()));
        }
        let mut left = self.unary()?;
        while let Some((operator, strength, words)) = self.operator().filter(|(_, strength, _)| *strength >= precedence)
        {
            (0..words).for_each(|_| {
                self.take();
            });
            let right = self.expression(if operator == Operator::Power { strength } else { strength + 1 })?;
            let at = left.at.start..right.at.end;
            left = Expr { node: Node::Binary(operator, Box::new(left), Box::new(right)), at };
        }
        if precedence == 0 {
            left = self.piped(left)?;
            left = self.conditional(left)?;
        }
        self.depth -= 1;
        Ok(left)
    }

    fn operator(&self) -> Option<(Operator, u8, usize)> {
        let found = |sign: &str| OPERATORS.iter().find(|(known, _, _)| *known == sign);
        match self.peek() {
            Word::Sign(sign) => found(sign).map(|(_, operator, strength)| (*operator, *strength, 1)),
            Word::Name(name) if name == "not" => {
                let then_in = matches!(&self.tokens.get(self.next + 1)?.what, Word::Name(name) if name == "in");
                then_in.then_some((Operator::NotIn, 20, 2))
            }
            Word::Name(name) => found(name).map(|(_, operator, strength)| (*operator, *strength, 1)),
            Word::Int(_) | Word::Float(_) | Word::Text(_) | Word::End => None,
        }
    }

    fn piped(&mut self, mut left: Expr) -> Result<Expr, BadCondition> {
        while self.has("|") {
            let at = self.place();
            let Word::Name(name) = self.take() else {
                let what = "`|` is followed by a function".to_owned();
                return Err(BadCondition::new(what, "write `result | all(# > 1)`, or `||` for `or`", at));
            };
            left = self.call(&name, at, Some(left))?;
        }
        Ok(left)
    }

    fn conditional(&mut self, condition: Expr) -> Result<Expr, BadCondition> {
        if !self.has("?") {
            return Ok(condition);
        }
        let start = condition.at.start;
        let yes = self.expression(0)?;
        self.expect(":", "the first choice of `?`")?;
        let no = self.expression(0)?;
        Ok(self.expr(Node::If(Box::new(condition), Box::new(yes), Box::new(no)), start))
    }

    fn unary(&mut self) -> Result<Expr, BadCondition> {
        let start = self.place().start;
        let is_not = matches!(self.peek(), Word::Name(name) if name == "not") || *self.peek() == Word::Sign("!");
        if is_not {
            self.take();
            let of = self.expression(NOT)?;
            return Ok(self.expr(Node::Not(Box::new(of)), start));
        }
        if self.has("-") {
            let of = self.expression(SIGNED)?;
            return Ok(self.expr(Node::Minus(Box::new(of)), start));
        }
        if self.has("+") {
            let of = self.expression(SIGNED)?;
            return Ok(self.expr(Node::Plus(Box::new(of)), start));
        }
        let primary = self.primary()?;
        self.members(primary)
    }

    fn primary(&mut self) -> Result<Expr, BadCondition> {
        let at = self.place();
        let start = at.start;
        let node = match self.take() {
            Word::Int(number) => Node::Int(number),
            Word::Float(number) => Node::Float(number),
            Word::Text(text) => Node::Text(text),
            Word::Name(name) => return self.named(&name, at),
            Word::Sign("(") => {
                let inner = self.expression(0)?;
                self.expect(")", "what began with `(`")?;
                inner.node
            }
            Word::Sign("[") => Node::List(self.items("]", "the list")?),
            Word::Sign("{") => self.map()?,
            Word::Sign("#") if self.inside > 0 => Node::Element,
            Word::Sign("#index") if self.inside > 0 => Node::Place,
            Word::Sign(".") if self.inside > 0 => {
                // `.name` is `#.name`; the name follows as a member.
                self.next -= 1;
                Node::Element
            }
            Word::Sign(sign @ ("#" | "#index" | "." | "#acc")) => {
                let what = format!("`{sign}` stands for an element of a list, and this is inside of no function");
                return Err(BadCondition::new(what, "write `all(result, # > 1)` or `result[0]`", at));
            }
            Word::End => {
                let what = "the condition ends where a value belongs".to_owned();
                return Err(BadCondition::new(what, "write it as `result[0] >= 0.95`", at));
            }
            Word::Sign(sign) => {
                let what = format!("`{sign}` stands where a value belongs");
                return Err(BadCondition::new(what, "write it as `result[0] >= 0.95`", at));
            }
        };
        Ok(self.expr(node, start))
    }

    fn named(&mut self, name: &str, at: Range<usize>) -> Result<Expr, BadCondition> {
        if *self.peek() == Word::Sign("(") {
            return self.call(name, at, None);
        }
        let node = match name {
            "true" => Node::Bool(true),
            "false" => Node::Bool(false),
            "nil" => Node::Nil,
            "result" => Node::Result,
            "let" | "if" => {
                let what = format!("`{name}` is not supported");
                return Err(BadCondition::new(
                    what,
                    "write `condition ? one : other`, and each value in its place",
                    at,
                ));
            }
            "null" | "None" => {
                return Err(BadCondition::new(format!("unknown name `{name}`"), "nothing is written `nil`", at));
            }
            _ => {
                let what = format!("unknown name `{name}`");
                let help = if self.inside > 0 {
                    format!("the measured value is `result`; a field of an element is written `.{name}`")
                } else {
                    "the measured value is called `result`; texts need quotes".to_owned()
                };
                return Err(BadCondition::new(what, help, at));
            }
        };
        Ok(Expr { node, at })
    }

    /// A call of a function whose name was read; what is piped into it is its first argument.
    fn call(&mut self, name: &str, at: Range<usize>, piped: Option<Expr>) -> Result<Expr, BadCondition> {
        let Some(function) = FUNCTIONS.iter().find(|function| function.name == name) else {
            let help = match name {
                "repeat" | "reduce" | "sortBy" | "groupBy" | "now" | "date" | "duration" => {
                    "this function of the language is not supported in conditions".to_owned()
                }
                _ => super::types::alike(name),
            };
            return Err(BadCondition::new(format!("unknown function `{name}`"), help, at));
        };
        let start = piped.as_ref().map_or(at.start, |piped| piped.at.start);
        self.expect("(", "the name of a function")?;
        let mut args: Vec<Expr> = piped.into_iter().collect();
        let mut each = None;
        while !self.has(")") {
            if function.each.is_some() && args.len() == 1 && each.is_none() {
                each = Some(self.predicate()?);
            } else {
                args.push(self.expression(0)?);
            }
            if !self.has(",") {
                self.expect(")", "the arguments of a function")?;
                break;
            }
        }
        Ok(self.expr(Node::Call { name: function.name, args, each }, start))
    }

    fn predicate(&mut self) -> Result<Box<Expr>, BadCondition> {
        self.inside += 1;
        let predicate = if self.has("{") {
            let inner = self.expression(0)?;
            self.expect("}", "what is asked of each element")?;
            inner
        } else {
            self.expression(0)?
        };
        self.inside -= 1;
        Ok(Box::new(predicate))
    }

    fn items(&mut self, end: &'static str, of: &str) -> Result<Vec<Expr>, BadCondition> {
        let mut items = Vec::new();
        while !self.has(end) {
            items.push(self.expression(0)?);
            if !self.has(",") {
                self.expect(end, of)?;
                break;
            }
        }
        Ok(items)
    }

    fn map(&mut self) -> Result<Node, BadCondition> {
        let mut fields = Vec::new();
        while !self.has("}") {
            let at = self.place();
            let (Word::Name(name) | Word::Text(name)) = self.take() else {
                return Err(BadCondition::new("a map has names".into(), "write it as `{a: 1}`", at));
            };
            self.expect(":", "a name in a map")?;
            fields.push((name, self.expression(0)?));
            if !self.has(",") {
                self.expect("}", "the map")?;
                break;
            }
        }
        Ok(Node::Map(fields))
    }

    /// What follows a value: `.name`, `[0]`, `[1:2]`, `?.name`.
    fn members(&mut self, mut of: Expr) -> Result<Expr, BadCondition> {
        loop {
            let start = of.at.start;
            if let Some(is_optional) = self.dot() {
                if self.has("[") {
                    of = self.index(of, is_optional)?;
                    continue;
                }
                let at = self.place();
                let Word::Name(name) = self.take() else {
                    let what = "a name is missing after `.`".to_owned();
                    return Err(BadCondition::new(what, "write `result.name` or `result['a.name']`", at));
                };
                if *self.peek() == Word::Sign("(") {
                    let what = format!("`.{name}(…)`: values have no methods");
                    return Err(BadCondition::new(what, super::types::alike(&name), at));
                }
                let key = Box::new(Expr { node: Node::Text(name), at });
                of = self.expr(Node::Member { of: Box::new(of), key, is_optional }, start);
            } else if self.has("[") {
                of = self.index(of, false)?;
            } else {
                return Ok(of);
            }
        }
    }

    fn dot(&mut self) -> Option<bool> {
        if self.has("?.") { Some(true) } else { self.has(".").then_some(false) }
    }

    fn index(&mut self, of: Expr, is_optional: bool) -> Result<Expr, BadCondition> {
        let start = of.at.start;
        let of = Box::new(of);
        let from = if *self.peek() == Word::Sign(":") { None } else { Some(Box::new(self.expression(0)?)) };
        if self.has(":") {
            let to = if *self.peek() == Word::Sign("]") { None } else { Some(Box::new(self.expression(0)?)) };
            self.expect("]", "the part of a list")?;
            return Ok(*self.boxed(Node::Slice { of, from, to }, start));
        }
        self.expect("]", "the place in a list")?;
        let key = from.expect("without one there is a colon");
        Ok(self.expr(Node::Member { of, key, is_optional }, start))
    }
}

/// A word as a message shows it.
fn shown(word: &Word) -> String {
    match word {
        Word::Int(number) => format!("`{number}`"),
        Word::Float(number) => format!("`{number}`"),
        Word::Text(text) => format!("the text \"{text}\""),
        Word::Name(name) => format!("`{name}`"),
        Word::Sign(sign) => format!("`{sign}`"),
        Word::End => "nothing".to_owned(),
    }
}
