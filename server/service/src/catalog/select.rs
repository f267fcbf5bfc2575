//! Which instances are meant: tags, metadata, health, and a CEL expression (`crate cel`).
//!
//! An expression is bounded before it is evaluated: what it may cost at most follows from its form, as CEL has no loops but over what is
//! there. Regular expressions are left out, because compiling one costs more than any bound here.

use std::collections::HashMap;

use cel::common::ast::{EntryExpr, Expr, IdedExpr};
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::{Context, Program, Value};
use konsul_proto::v1;
use konsul_state::command::{Health, InstanceDefinition};

use super::directory::ListedInstance;
use crate::error::ServiceError;
use crate::limits;
use crate::parse;

/// Most items of what an expression may go through: tags, ports, metadata.
const ITEMS: u64 = 64;

/// Which instances are meant.
pub(super) struct Selector {
    tags: Vec<String>,
    metadata: HashMap<String, String>,
    /// Those of these healths; empty: of any.
    health: Vec<Health>,
    filter: Option<Program>,
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

fn compile(filter: &str) -> Result<Program, ServiceError> {
    let refused = |problem: String| Err(ServiceError::field("select.filter", problem));
    if filter.len() > limits::FILTER_BYTES {
        return refused(format!("must be at most {} bytes", limits::FILTER_BYTES));
    }
    let program = match Program::compile(filter) {
        Ok(program) => program,
        Err(errors) => {
            let first = errors.to_string().lines().next().unwrap_or_default().to_owned();
            return refused(format!("must be a CEL expression: {first}"));
        }
    };
    let known = |name: &&str| !Variables::NAMES.contains(name) && !name.starts_with('@');
    if let Some(unknown) = program.references().variables().into_iter().find(known) {
        return refused(format!("names {unknown:?}, and there is {}", Variables::NAMES.join(", ")));
    }
    if cost(program.expression()) > limits::FILTER_STEPS {
        return Err(ServiceError::FilterTooCostly { limit: limits::FILTER_STEPS });
    }
    Ok(program)
}

/// The most steps that an expression may take: one for each of its parts, as often as the loops around it go round.
fn cost(of: &IdedExpr) -> u64 {
    let all = |parts: &[IdedExpr]| parts.iter().map(cost).fold(0, u64::saturating_add);
    let entries = |entries: &[cel::common::ast::IdedEntryExpr]| {
        let entry = |entry: &EntryExpr| match entry {
            EntryExpr::StructField(field) => cost(&field.value),
            EntryExpr::MapEntry(entry) => cost(&entry.key).saturating_add(cost(&entry.value)),
        };
        entries.iter().map(|ided| entry(&ided.expr)).fold(0, u64::saturating_add)
    };
    let parts = match &of.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => 0,
        Expr::Call(call) => all(&call.args).saturating_add(call.target.as_deref().map_or(0, cost)),
        Expr::List(list) => all(&list.elements),
        Expr::Map(map) => entries(&map.entries),
        Expr::Struct(made) => entries(&made.entries),
        Expr::Select(select) => cost(&select.operand),
        Expr::Comprehension(round) => {
            // What it goes through is one of the instance's, or put together from parts that are counted.
            let rounds = size(&round.iter_range);
            let body = cost(&round.loop_cond).saturating_add(cost(&round.loop_step));
            let rest = [&round.iter_range, &round.accu_init, &round.result];
            rest.into_iter()
                .map(cost)
                .fold(rounds.saturating_mul(body.saturating_add(1)), u64::saturating_add)
        }
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
fn holds(filter: &Program, instance: &ListedInstance) -> bool {
    let variables = Variables(instance);
    let mut context = Context::default();
    context.set_variable_resolver(&variables);
    matches!(filter.execute(&context), Ok(Value::Bool(true)))
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
