//! What people read of services, nodes and checks.

use anstyle::{AnsiColor, Style};
use konsul_client::proto::{self, HealthStatus, InstanceInfo, check::Kind, check_name::Owner};

use super::text::{Text, escape, fields, table, time};

impl Text for proto::RegisterResponse {
    fn text(&self) -> String {
        let mut text = format!("revision {}\n", self.revision);
        for warning in &self.warnings {
            text.push_str(&format!("note: {}\n", escape(warning)));
        }
        text
    }
}

impl Text for proto::DeregisterResponse {
    fn text(&self) -> String {
        let instances = if self.instances == 1 { "instance" } else { "instances" };
        format!("took {} {instances} away, at revision {}\n", self.instances, self.revision)
    }
}

impl Text for proto::SetMaintenanceResponse {
    fn text(&self) -> String {
        format!("revision {}\n", self.revision)
    }
}

impl Text for proto::ConfigureServiceResponse {
    fn text(&self) -> String {
        format!("revision {}\n", self.revision)
    }
}

impl Text for proto::UpdateCheckResponse {
    fn text(&self) -> String {
        format!("revision {}\n", self.revision)
    }
}

impl Text for proto::ListServicesResponse {
    fn text(&self) -> String {
        let row = |service: &proto::ServiceInfo| {
            let count = |count: u64| if count == 0 { "-".to_owned() } else { count.to_string() };
            let proto::ServiceInfo { passing, warning, critical, maintenance, .. } = *service;
            let tags = escape(&service.tags.join(","));
            [service.name.clone(), count(passing), count(warning), count(critical), count(maintenance), tags]
        };
        let rows: Vec<_> = self.services.iter().map(row).collect();
        if rows.is_empty() {
            return String::new();
        }
        table(["SERVICE", "PASSING", "WARNING", "CRITICAL", "MAINTENANCE", "TAGS"], &rows)
    }
}

impl Text for proto::ListInstancesResponse {
    fn text(&self) -> String {
        let row = |info: &InstanceInfo| {
            let instance = info.instance.clone().unwrap_or_default();
            let node = if instance.node.is_empty() { "-".to_owned() } else { instance.node.clone() };
            let tags = escape(&instance.tags.join(","));
            [instance.service.clone(), escape(&instance.id), health(info.health()), place(info), node, tags]
        };
        let rows: Vec<_> = self.instances.iter().map(row).collect();
        if rows.is_empty() {
            return String::new();
        }
        table(["SERVICE", "INSTANCE", "HEALTH", "ADDRESS", "NODE", "TAGS"], &rows)
    }
}

impl Text for proto::ResolveResponse {
    /// The addresses alone, for scripts.
    fn text(&self) -> String {
        self.instances.iter().map(|info| place(info) + "\n").collect()
    }
}

impl Text for proto::DependenciesResponse {
    fn text(&self) -> String {
        let row = |dependency: &proto::Dependency| {
            let on = dependency.depends_on.join(",");
            let on = if on.is_empty() { "-".to_owned() } else { on };
            [dependency.service.clone(), health(dependency.health()), health(dependency.rolled_up()), on]
        };
        let rows: Vec<_> = self.services.iter().map(row).collect();
        let mut text = table(["SERVICE", "ITSELF", "WITH ALL BELOW", "DEPENDS ON"], &rows);
        for cycle in &self.cycles {
            text.push_str(&format!("circle: {}\n", cycle.services.join(" -> ")));
        }
        if self.truncated {
            text.push_str("there are more\n");
        }
        text
    }
}

impl Text for proto::ListNodesResponse {
    fn text(&self) -> String {
        let row = |info: &proto::NodeInfo| {
            let node = info.node.clone().unwrap_or_default();
            let zone = node.metadata.get("zone").map_or("-".to_owned(), |zone| escape(zone));
            [node.name, health(info.health()), node.address, zone]
        };
        let rows: Vec<_> = self.nodes.iter().map(row).collect();
        if rows.is_empty() { String::new() } else { table(["NODE", "HEALTH", "ADDRESS", "ZONE"], &rows) }
    }
}

impl Text for proto::GetNodeResponse {
    fn text(&self) -> String {
        let info = self.node.clone().unwrap_or_default();
        let node = info.node.clone().unwrap_or_default();
        let mut metadata: Vec<_> =
            node.metadata.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
        metadata.sort();
        let mut lines = vec![
            ("node", node.name.clone()),
            ("health", health(info.health())),
            ("address", node.address.clone()),
            ("metadata", metadata.join(" ")),
            ("revision", info.mod_revision.to_string()),
        ];
        if !info.maintenance_reason.is_empty() {
            lines.push(("maintenance", escape(&info.maintenance_reason)));
        }
        fields(&lines)
    }
}

impl Text for proto::ListChecksResponse {
    fn text(&self) -> String {
        let row = |info: &proto::CheckInfo| {
            let name = info.name.clone().unwrap_or_default();
            let held = if info.held_until.is_some() { " (flaps)" } else { "" };
            let output = info.output.lines().next().unwrap_or_default();
            let kind = info.check.as_ref().and_then(|check| check.kind.as_ref()).map_or("-", kind);
            [
                owner(&name),
                escape(&name.check),
                kind.to_owned(),
                health(info.status()) + held,
                time(info.since.as_ref()),
                escape(output).chars().take(60).collect(),
            ]
        };
        let rows: Vec<_> = self.checks.iter().map(row).collect();
        if rows.is_empty() {
            return String::new();
        }
        table(["OF", "CHECK", "KIND", "STATUS", "SINCE", "OUTPUT"], &rows)
    }
}

impl Text for proto::ListTransitionsResponse {
    fn text(&self) -> String {
        let row = |transition: &proto::Transition| {
            let name = transition.name.clone().unwrap_or_default();
            let output = transition.output.lines().next().unwrap_or_default();
            [time(transition.time.as_ref()), escape(&name.check), health(transition.status()), escape(output)]
        };
        let rows: Vec<_> = self.transitions.iter().map(row).collect();
        if rows.is_empty() { String::new() } else { table(["TIME", "CHECK", "STATUS", "OUTPUT"], &rows) }
    }
}

fn owner(name: &proto::CheckName) -> String {
    match &name.owner {
        Some(Owner::Instance(instance)) => format!("{}/{}", instance.service, escape(&instance.id)),
        Some(Owner::Node(node)) => format!("node {node}"),
        None => "-".to_owned(),
    }
}

fn kind(kind: &Kind) -> &'static str {
    match kind {
        Kind::Ttl(_) => "ttl",
        Kind::Http(_) => "http",
        Kind::Tcp(_) => "tcp",
        Kind::Udp(_) => "udp",
        Kind::Grpc(_) => "grpc",
        Kind::Script(_) => "script",
        Kind::Alias(_) => "alias",
    }
}

/// Host and port.
fn place(info: &InstanceInfo) -> String {
    let port = info.instance.as_ref().map_or(0, |instance| instance.port);
    let host = if info.address.contains(':') { format!("[{}]", info.address) } else { info.address.clone() };
    if port == 0 { host } else { format!("{host}:{port}") }
}

/// A health in a word, and on terminals in its colour.
fn health(health: HealthStatus) -> String {
    let (name, colour) = match health {
        HealthStatus::Passing => ("passing", Some(AnsiColor::Green)),
        HealthStatus::Warning => ("warning", Some(AnsiColor::Yellow)),
        HealthStatus::Critical => ("critical", Some(AnsiColor::Red)),
        HealthStatus::Maintenance => ("maintenance", Some(AnsiColor::Blue)),
        HealthStatus::Unspecified => ("-", None),
    };
    let style = colour.map_or_else(Style::new, AnsiColor::on_default);
    format!("{style}{name}{style:#}")
}
