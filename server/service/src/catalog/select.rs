//! Which instances are meant: tags, metadata, health, and a CEL expression (`crate cel`).
//!
//! An expression is bounded before it is evaluated: what it may cost at most follows from its form, as CEL has no loops but over what is
//! there. Regular expressions are left out, because compiling one costs more than any bound here.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr, IdedExpr, MapExpr, StructExpr};
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::parser::PrattParser;
use cel::{Context, Env, Value};
use konsul_proto::v1;
use konsul_state::command::{Health, InstanceDefinition};

use super::directory::ListedInstance;
use crate::error::ServiceError;
use crate::limits;
use crate::parse;

/// Most items of what an expression may go through: tags, ports, metadata.
const ITEMS: u64 = 64;
/// Most words and signs of an expression, so that no walk over it needs much of the stack.
const TOKENS: usize = 256;
/// How deep an expression may be nested: evaluating it takes much more of the stack than looking at it.
const DEPTH: usize = 32;

/// Which instances are meant.
pub(super) struct Selector {
    tags: Vec<String>,
    metadata: HashMap<String, String>,
    /// Those of these healths; empty: of any.
    health: Vec<Health>,
    filter: Option<IdedExpr>,
}

impl Selector {
    /// Parses a selector.
    pub(super) fn parse(selector: Option<v1::InstanceSelector>) -> Result<Self, ServiceError> {
        let v1::InstanceSelector { tags, metadata, health, filter } = selector.unwrap_or_default();
        for (name, count) in [("tags", tags.len()), ("metadata", metadata.len()), ("health", health.len())] {
            if count > limits::SELECTOR_ITEMS {
                let problem = format!("must have at most {} items", limits::SELECTOR_ITEMS);
                return Err(ServiceError::field(format!("select.{name}"), problem));
            }
        }
        let health = health.into_iter().map(|status| parse::health("select.health", status));
        let health = health.collect::<Result<_, _>>()?;
        let filter = if filter.is_empty() { None } else { Some(compile(&filter)?) };
        Ok(Self { tags, metadata, health, filter })
    }

    /// Whether every instance is meant.
    pub(super) fn is_open(&self) -> bool {
        self.tags.is_empty() && self.metadata.is_empty() && self.filter.is_none() && self.health.is_empty()
    }

    /// Whether it says which healths are meant.
    pub(super) fn names_health(&self) -> bool {
        !self.health.is_empty()
    }

    /// A tag that all who are meant have.
    pub(super) fn tag(&self) -> Option<&str> {
        self.tags.first().map(String::as_str)
    }

    /// An item of metadata that all who are meant have.
    pub(super) fn item(&self) -> Option<(&str, &str)> {
        self.metadata.iter().next().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether an instance is meant.
    pub(super) fn admits(&self, instance: &ListedInstance) -> bool {
        let health = instance.record.health();
        (self.health.is_empty() || self.health.contains(&health)) && self.admits_in_any_health(instance)
    }

    /// Whether an instance is meant if its health does not count.
    pub(super) fn admits_in_any_health(&self, instance: &ListedInstance) -> bool {
        let none = InstanceDefinition::default();
        let definition = instance.record.definition.as_ref().unwrap_or(&none);
        // Both are sorted in the record.
        let has_tag = |tag: &String| definition.tags.binary_search(tag).is_ok();
        let has_item = |(name, value): (&String, &String)| {
            let place = definition.metadata.binary_search_by(|item| item.name.cmp(name));
            place.is_ok_and(|place| definition.metadata[place].value == *value)
        };
        self.tags.iter().all(has_tag)
            && self.metadata.iter().all(has_item)
            && self.filter.as_ref().is_none_or(|filter| holds(filter, instance))
    }
}

fn compile(filter: &str) -> Result<IdedExpr, ServiceError> {
    let refused = |problem: String| Err(ServiceError::field("select.filter", problem));
    if filter.len() > limits::FILTER_BYTES {
        return refused(format!("must be at most {} bytes", limits::FILTER_BYTES));
    }
    if tokens(filter) > TOKENS {
        return refused(format!("must be at most {TOKENS} words and signs"));
    }
    // cel's other parser, made by ANTLR, takes much more of the stack.
    let expression = match PrattParser::new().parse(filter) {
        Ok(expression) => expression,
        Err(errors) => {
            let first = errors.to_string().lines().next().unwrap_or_default().to_owned();
            return refused(format!("must be a CEL expression: {first}"));
        }
    };
    if depth(&expression) > DEPTH {
        return refused(format!("must not be nested more than {DEPTH} deep"));
    }
    if let Some(unknown) = unknown(&expression, &mut Variables::NAMES.to_vec()) {
        return refused(format!("names {unknown:?}, and there is {}", Variables::NAMES.join(", ")));
    }
    if cost(&expression) > limits::FILTER_STEPS {
        return Err(ServiceError::FilterTooCostly { limit: limits::FILTER_STEPS });
    }
    Ok(expression)
}

/// How many words, numbers, strings and signs an expression has, of which each may nest what follows it. The parsers of cel overflow the
/// stack on what is nested a thousand deep, whatever depth they are told.
fn tokens(filter: &str) -> usize {
    let mut tokens = 0;
    let mut quote = None;
    let mut in_word = false;
    let mut characters = filter.chars();
    while let Some(c) = characters.next() {
        if let Some(end) = quote {
            match c {
                '\\' => drop(characters.next()),
                c if c == end => quote = None,
                _ => {}
            }
            continue;
        }
        let is_word = c.is_alphanumeric() || c == '_';
        let goes_on = is_word && in_word;
        if !goes_on && !c.is_whitespace() {
            tokens += 1;
        }
        in_word = is_word;
        quote = matches!(c, '"' | '\'').then_some(c);
    }
    tokens
}

/// The first name in an expression that is none of these, nor one that a loop around it gives.
fn unknown<'e>(of: &'e IdedExpr, known: &mut Vec<&'e str>) -> Option<&'e str> {
    let round = match &of.expr {
        Expr::Ident(name) => return (!known.contains(&name.as_str())).then_some(name),
        Expr::Comprehension(round) => round,
        _ => return parts(&of.expr).into_iter().find_map(|part| unknown(part, known)),
    };
    let before = known.len();
    let outside = [&round.iter_range, &round.accu_init].into_iter();
    let found = outside.clone().find_map(|part| unknown(part, known));
    known.extend([round.iter_var.as_str(), round.accu_var.as_str()]);
    known.extend(round.iter_var2.as_deref());
    let mut inside = [&round.loop_cond, &round.loop_step, &round.result].into_iter();
    let found = found.or_else(|| inside.find_map(|part| unknown(part, known)));
    known.truncate(before);
    found
}

fn depth(of: &IdedExpr) -> usize {
    let deepest = match &of.expr {
        Expr::Comprehension(round) => {
            let outside = [&round.iter_range, &round.accu_init];
            let inside = [&round.loop_cond, &round.loop_step, &round.result];
            outside.into_iter().chain(inside).map(depth).max()
        }
        other => parts(other).into_iter().map(depth).max(),
    };
    1 + deepest.unwrap_or(0)
}

/// What an expression is put together from, but for loops.
fn parts(of: &Expr) -> Vec<&IdedExpr> {
    match of {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) | Expr::Comprehension(_) => Vec::new(),
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Map(MapExpr { entries }) | Expr::Struct(StructExpr { entries, .. }) => entries
            .iter()
            .flat_map(|ided| match &ided.expr {
                EntryExpr::StructField(field) => vec![&field.value],
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
            })
            .collect(),
    }
}

/// The most steps that an expression may take: one for each of its parts, as often as the loops around it go round.
fn cost(of: &IdedExpr) -> u64 {
    let all = |parts: &[&IdedExpr]| parts.iter().map(|part| cost(part)).fold(0, u64::saturating_add);
    let parts = match &of.expr {
        Expr::Comprehension(round) => {
            let body = all(&[&round.loop_cond, &round.loop_step]).saturating_add(1);
            // What it goes through is one of the instance's, or put together from parts that are counted.
            let rounds = size(&round.iter_range).saturating_mul(body);
            rounds.saturating_add(all(&[&round.iter_range, &round.accu_init, &round.result]))
        }
        other => all(&parts(other)),
    };
    parts.saturating_add(1)
}

/// The most items that what an expression yields may have.
fn size(of: &IdedExpr) -> u64 {
    match &of.expr {
        Expr::List(list) => (list.elements.len() as u64).max(ITEMS),
        Expr::Map(map) => (map.entries.len() as u64).max(ITEMS),
        // Lists that are added, and what either side of a choice yields.
        Expr::Call(call) => {
            let target = call.target.as_deref().map_or(0, size);
            call.args.iter().map(size).fold(target, u64::saturating_add).max(ITEMS)
        }
        // What a loop goes through has as many items, each put together by a step of it.
        Expr::Comprehension(round) => {
            size(&round.iter_range).saturating_mul(size(&round.loop_step)).max(ITEMS)
        }
        Expr::Select(select) => size(&select.operand),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) => ITEMS,
    }
}

/// Whether an expression is true for an instance. One that fails is not.
fn holds(filter: &IdedExpr, instance: &ListedInstance) -> bool {
    static FUNCTIONS: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));
    let variables = Variables(instance);
    let mut context = Context::with_env(Arc::clone(&FUNCTIONS));
    context.set_variable_resolver(&variables);
    matches!(context.resolve(filter), Ok(Value::Bool(true)))
}

/// What an expression sees of an instance.
struct Variables<'i>(&'i ListedInstance);

impl Variables<'_> {
    const NAMES: [&'static str; 11] = [
        "service", "id", "node", "address", "port", "ports", "tags", "metadata", "version", "zone", "health",
    ];

    fn value(&self, name: &str) -> Option<Value> {
        let Self(ListedInstance { id, record }) = self;
        let definition = record.definition.as_ref()?;
        Some(match name {
            "service" => id.service.as_str().into(),
            "id" => id.id.as_str().into(),
            "node" => definition.node.as_str().into(),
            "address" => record.address.as_str().into(),
            "port" => Value::Int(definition.port.into()),
            "ports" => {
                let ports = definition.ports.iter().map(|p| (p.name.clone(), Value::Int(p.port.into())));
                ports.collect::<HashMap<String, Value>>().into()
            }
            "tags" => definition.tags.iter().map(|tag| Value::from(tag.as_str())).collect::<Vec<_>>().into(),
            "metadata" => {
                let items =
                    definition.metadata.iter().map(|i| (i.name.clone(), Value::from(i.value.as_str())));
                items.collect::<HashMap<String, Value>>().into()
            }
            "version" => definition.version.as_str().into(),
            "zone" => record.zone.as_str().into(),
            "health" => match record.health() {
                Health::Passing => "passing",
                Health::Warning => "warning",
                Health::Critical => "critical",
                Health::Maintenance => "maintenance",
            }
            .into(),
            _ => return None,
        })
    }
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        self.value(variable)?.try_into().ok().map(CowVal::Owned)
    }
}
