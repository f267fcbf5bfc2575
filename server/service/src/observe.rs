//! What can be seen of calls from outside: the methods there are, and a trait for who counts them. Nothing
//! is counted here.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use prost::Message;
use tonic::Code;

/// A method of the API. The one with index 0 stands for every path that is none.
#[derive(Debug, PartialEq, Eq)]
pub struct Method {
    /// Its place in [`methods`], so that whoever counts can do so in an array.
    pub index: usize,
    /// Its path, as in `/konsul.v1.KV/Get`.
    pub path: String,
    /// Whether its answer is a stream.
    pub streaming: bool,
}

/// Told of every call.
pub trait CallObserver: Send + Sync + 'static {
    /// A call began. Must not block.
    fn started(&self, method: &'static Method);

    /// A call ended: its answer was made, or the last message of its stream was sent, or the caller left
    /// (`Cancelled`). Must not block.
    fn ended(&self, method: &'static Method, code: Code, took: Duration);
}

/// All methods.
#[must_use]
pub fn methods() -> &'static [Method] {
    &METHODS.all
}

/// The method of a path.
pub(crate) fn method(path: &str) -> &'static Method {
    let methods = &*METHODS;
    &methods.all[methods.by_path.get(path).copied().unwrap_or(0)]
}

static METHODS: LazyLock<Methods> = LazyLock::new(Methods::read);

struct Methods {
    all: Vec<Method>,
    by_path: HashMap<String, usize>,
}

impl Methods {
    fn read() -> Self {
        let mut methods = Self { all: Vec::new(), by_path: HashMap::new() };
        methods.add("unknown".to_owned(), false);
        let sets = [
            konsul_proto::DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        for set in sets {
            // The sets are compiled in; one that did not decode would only leave its methods unnamed.
            for file in prost_types::FileDescriptorSet::decode(set).unwrap_or_default().file {
                for service in &file.service {
                    for method in &service.method {
                        let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                        methods.add(path, method.server_streaming());
                    }
                }
            }
        }
        methods
    }

    fn add(&mut self, path: String, streaming: bool) {
        let index = self.all.len();
        self.by_path.insert(path.clone(), index);
        self.all.push(Method { index, path, streaming });
    }
}
