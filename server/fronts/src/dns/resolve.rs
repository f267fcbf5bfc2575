//! What is answered to a question about a name of ours: records made of what the directory has.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use super::directory::{Directory, Instance, Node, PtrTarget, Service};
use super::names::{Found, HOSTMASTER, NAME_SERVER, Names, Owner, Select, Subject};
use super::records::{addresses, minimal_any, push_address, seconds, srv, target_name, txt, type_of};
use super::settings::Settings;
use super::template::{Template, pointer};
use super::wire::{push_label, rtype};

/// Refresh, retry and expire of the SOA, in seconds. Nobody transfers the zone, so nobody uses them.
const SOA_TIMES: [u32; 3] = [3_600, 600, 86_400];

/// What is answered.
pub(super) enum Verdict {
    /// The name is none of ours.
    Foreign,
    /// Whoever asks may not see it.
    Denied,
    /// There is no such name (NXDOMAIN).
    Absent(ZoneAt),
    /// There is, with these records, or none (NODATA).
    Found(Arc<Template>, ZoneAt),
    /// The same, of something in the catalog that can be asked whether it is still the same.
    Kept(Arc<Kept>),
}

/// An answer that is good as long as what it was made of is in the directory.
pub(super) struct Kept {
    pub(super) owner: Owner,
    pub(super) source: Source,
    pub(super) template: Template,
    pub(super) zone: ZoneAt,
}

/// What an answer was made of. An answer that is kept for long must not keep a service of 10,000 instances; the address of what it was made of
/// belongs to nobody else all the same, as long as there is this.
pub(super) enum Source {
    Service(Weak<Service>),
    Node(Weak<Node>),
}

/// Where in the question the name of the zone begins, whose SOA goes with negative answers (RFC 2308).
#[derive(Clone, Copy)]
pub(super) enum ZoneAt {
    /// At this offset of the name.
    Domain(usize),
    /// Everywhere: each address is a zone of its own.
    Reverse,
}

/// Looks things up.
pub(super) struct Resolver {
    pub(super) directory: Arc<dyn Directory>,
    pub(super) names: Names,
    pub(super) settings: Settings,
}

/// A question, taken apart.
pub(super) struct Question<'q> {
    pub(super) name: &'q [u8],
    pub(super) rtype: u16,
    pub(super) found: &'q Found,
}

impl Resolver {
    /// Answers for a name on the wire, in lower case.
    pub(super) fn resolve(&self, name: &[u8], rtype: u16, source: IpAddr) -> Verdict {
        let found = self.names.find(name);
        let zone = ZoneAt::Domain(found.domain_at);
        let question = Question { name, rtype, found: &found };
        let empty = || Verdict::Found(Arc::default(), zone);
        match &found.subject {
            Subject::Foreign => Verdict::Foreign,
            Subject::Absent => Verdict::Absent(zone),
            Subject::Empty => empty(),
            Subject::Namespace(namespace) if self.directory.has_namespace(namespace) => empty(),
            Subject::Namespace(_) => Verdict::Absent(zone),
            Subject::Apex => Verdict::Found(Arc::new(self.apex(&question)), zone),
            Subject::NameServer => Verdict::Found(Arc::new(self.name_server(&question)), zone),
            Subject::Address(address) => match self.seen_at(*address, source).is_empty() {
                true => Verdict::Absent(zone),
                false => Verdict::Found(Arc::new(self.address(&question, *address)), zone),
            },
            Subject::Reverse(address) => match self.seen_at(*address, source) {
                targets if targets.is_empty() => Verdict::Foreign,
                targets => Verdict::Found(Arc::new(self.reverse(rtype, &targets)), ZoneAt::Reverse),
            },
            Subject::Service { owner, .. } | Subject::Node(owner) if !self.may_see(source, owner) => {
                Verdict::Denied
            }
            Subject::Service { owner, select } => {
                let kept = self.directory.service(&owner.namespace, &owner.name).and_then(|service| {
                    let template = self.service(&question, owner, select, &service)?;
                    Some((Source::Service(Arc::downgrade(&service)), template))
                });
                keep(owner, kept, zone)
            }
            Subject::Node(owner) => {
                let kept = self.directory.node(&owner.namespace, &owner.name).map(|node| {
                    let template = self.node(rtype, &node);
                    (Source::Node(Arc::downgrade(&node)), template)
                });
                keep(owner, kept, zone)
            }
        }
    }

    /// Whether an answer is still what would be made now.
    pub(super) fn is_current(&self, kept: &Kept) -> bool {
        let Owner { namespace, name } = &kept.owner;
        match &kept.source {
            Source::Service(then) => {
                self.directory.service(namespace, name).is_some_and(|now| then.as_ptr() == Arc::as_ptr(&now))
            }
            Source::Node(then) => {
                self.directory.node(namespace, name).is_some_and(|now| then.as_ptr() == Arc::as_ptr(&now))
            }
        }
    }

    pub(super) fn may_see(&self, source: IpAddr, owner: &Owner) -> bool {
        self.settings.access.may_see(source, &owner.namespace, &owner.name)
    }

    fn seen_at(&self, address: IpAddr, source: IpAddr) -> Vec<PtrTarget> {
        let mut targets = self.directory.by_address(address);
        targets.retain(|target| match target {
            PtrTarget::Node { namespace, name } => self.settings.access.may_see(source, namespace, name),
            PtrTarget::Instance { namespace, service, .. } => {
                self.settings.access.may_see(source, namespace, service)
            }
        });
        targets
    }

    /// Records of a service's name. None: there is no such name.
    fn service(
        &self,
        question: &Question<'_>,
        owner: &Owner,
        select: &Select,
        service: &Service,
    ) -> Option<Template> {
        let selected = select_from(service, select)?;
        let is_answered = service.is_answered(self.settings.only_passing);
        let answered: Vec<&Instance> =
            selected.into_iter().filter(|instance| is_answered(instance)).collect();
        let ttl = seconds(service.ttl().unwrap_or(self.settings.ttls.service));
        let mut template = Template::new();
        match question.rtype {
            rtype::ANY => minimal_any(&mut template, ttl),
            rtype::SRV => srv(&mut template, question, owner, select, &answered, ttl),
            rtype::TXT => txt(&mut template, answered.iter().flat_map(|instance| &instance.metadata), ttl),
            other => {
                let at = answered.iter().map(|instance| (&instance.address, u32::from(instance.weight)));
                addresses(&mut template, other, at, ttl);
            }
        }
        Some(template)
    }

    fn node(&self, rtype: u16, node: &Node) -> Template {
        let ttl = seconds(self.settings.ttls.node);
        let mut template = Template::new();
        match rtype {
            rtype::ANY => minimal_any(&mut template, ttl),
            rtype::TXT => txt(&mut template, node.metadata.iter(), ttl),
            other => addresses(&mut template, other, node.addresses.iter().map(|address| (address, 1)), ttl),
        }
        template
    }

    fn apex(&self, question: &Question<'_>) -> Template {
        let ttl = seconds(self.settings.ttls.apex);
        let mut template = Template::new();
        let server = |out: &mut Vec<u8>| {
            push_label(out, NAME_SERVER.as_bytes());
            out.extend_from_slice(&pointer(0));
        };
        match question.rtype {
            rtype::ANY => minimal_any(&mut template, ttl),
            rtype::SOA => template.push(rtype::SOA, ttl, 1, |out| self.soa(out, ZoneAt::Domain(0))),
            rtype::NS => {
                template.push(rtype::NS, ttl, 1, server);
                for address in &self.names.name_servers {
                    template.push_glue(server, type_of(*address), ttl, |out| push_address(out, *address));
                }
            }
            _ => {}
        }
        template
    }

    fn name_server(&self, question: &Question<'_>) -> Template {
        let ttl = seconds(self.settings.ttls.apex);
        let mut template = Template::new();
        if question.rtype == rtype::ANY {
            minimal_any(&mut template, ttl);
        }
        for address in self.names.name_servers.iter().filter(|at| type_of(**at) == question.rtype) {
            template.push(question.rtype, ttl, 1, |out| push_address(out, *address));
        }
        template
    }

    fn address(&self, question: &Question<'_>, address: IpAddr) -> Template {
        let ttl = seconds(self.settings.ttls.node);
        let mut template = Template::new();
        match question.rtype {
            rtype::ANY => minimal_any(&mut template, ttl),
            other if other == type_of(address) => {
                template.push(other, ttl, 1, |out| push_address(out, address));
            }
            _ => {}
        }
        template
    }

    /// PTR records (RFC 1035 §3.5). An instance whose id is no label is named by its service.
    fn reverse(&self, rtype: u16, targets: &[PtrTarget]) -> Template {
        let ttl = seconds(self.settings.ttls.node);
        let mut template = Template::new();
        match rtype {
            rtype::ANY => minimal_any(&mut template, ttl),
            rtype::PTR => {
                let names: HashSet<Vec<u8>> =
                    targets.iter().filter_map(|target| target_name(target, self.names.domain())).collect();
                for name in names {
                    template.push(rtype::PTR, ttl, 1, |out| out.extend_from_slice(&name));
                }
            }
            _ => {}
        }
        template
    }

    /// The SOA's data (RFC 1035 §3.3.13); its last field is the TTL of negative answers (RFC 2308 §4).
    pub(super) fn soa(&self, out: &mut Vec<u8>, zone: ZoneAt) {
        for label in [NAME_SERVER, HOSTMASTER] {
            push_label(out, label.as_bytes());
            match zone {
                ZoneAt::Domain(at) => out.extend_from_slice(&pointer(at)),
                ZoneAt::Reverse => out.extend_from_slice(self.names.domain()),
            }
        }
        // RFC 1982: a serial is the low bits of what only grows.
        out.extend_from_slice(&(self.directory.revision() as u32).to_be_bytes());
        for time in SOA_TIMES {
            out.extend_from_slice(&time.to_be_bytes());
        }
        out.extend_from_slice(&self.negative_ttl().to_be_bytes());
    }

    /// How long a negative answer may be kept, in seconds.
    pub(super) fn negative_ttl(&self) -> u32 {
        seconds(self.settings.ttls.negative)
    }
}

fn keep(owner: &Owner, made: Option<(Source, Template)>, zone: ZoneAt) -> Verdict {
    match made {
        Some((source, template)) => {
            Verdict::Kept(Arc::new(Kept { owner: owner.clone(), source, template, zone }))
        }
        None => Verdict::Absent(zone),
    }
}

/// The instances that a name selects. None: the name is not there. Empty: it is, because others end with it.
fn select_from<'s>(service: &'s Service, select: &Select) -> Option<Vec<&'s Instance>> {
    let index = service.index();
    let all = service.instances();
    let at = |places: &Vec<u32>| places.iter().filter_map(|&place| all.get(place as usize)).collect();
    let tag = |tag: &str| {
        let has_more = index.tag_ends.contains(tag)
            || tag == "instance" && !index.ids.is_empty()
            || tag == "port" && !index.ports.is_empty();
        index.tags.get(tag).map(at).or_else(|| has_more.then(Vec::new))
    };
    match select {
        Select::All => Some(all.iter().collect()),
        Select::Tag(name) => tag(name),
        Select::Port(name) => index.ports.get(name.as_str()).map(at).or_else(|| tag(&format!("{name}.port"))),
        Select::Instance(id) => index.ids.get(id.as_str()).map(at).or_else(|| tag(&format!("{id}.instance"))),
    }
}
