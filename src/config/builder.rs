//! A configuration that a program makes, with types in place of tables.
//!
//! The methods are for what most programs want; [`ConfigBuilder::set`] and its like take every
//! other key by its name in the configuration file. Everything is checked as a file is, in
//! [`ConfigBuilder::build`].
//!
//! ```
//! use rustbalance::config::builder::{ConfigBuilder, PortBuilder, ServiceBuilder};
//!
//! let port = PortBuilder::new(80).backend("127.0.0.1:8080").set("connect_timeout_s", 10);
//! let shop = ServiceBuilder::new("shop").key("/etc/shop/onion.key").port(port);
//! let config = ConfigBuilder::new("/var/lib/shop").instances(4).service(shop).build();
//! # assert!(config.is_ok(), "{config:?}");
//! ```

use std::fmt::Display;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Config, ConfigError};

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct ConfigBuilder {
    /// As the tables of a file.
    tables: Table,
}

/// One onion address.
#[derive(Clone, Debug)]
pub struct ServiceBuilder {
    /// As a `[[service]]`.
    table: Table,
}

/// One port of an onion address, or a range of them.
#[derive(Clone, Debug)]
pub struct PortBuilder {
    /// As a `[[service.port]]`.
    table: Table,
}

impl ConfigBuilder {
    /// A configuration whose keys and state lie in this directory.
    pub fn new(state_dir: impl AsRef<Path>) -> ConfigBuilder {
        let builder = ConfigBuilder { tables: Table::new() };
        builder.set("state_dir", path(state_dir.as_ref()))
    }

    /// Serve this onion address too.
    #[must_use]
    pub fn service(mut self, service: ServiceBuilder) -> ConfigBuilder {
        push(&mut self.tables, "service", service.table);
        self
    }

    /// Tor instances in this process; as many as data cores unless this is called.
    #[must_use]
    pub fn instances(mut self, instances: u16) -> ConfigBuilder {
        let turbo = self.tables.entry("turbo").or_insert_with(|| Table::new().into());
        if let Value::Table(turbo) = turbo {
            turbo.insert("instances".to_owned(), i64::from(instances).into());
        }
        self
    }

    /// Tor's own configuration, the table `[arti]`; that of the public network unless this is
    /// called.
    #[must_use]
    pub fn arti(self, arti: Table) -> ConfigBuilder {
        self.set("arti", arti)
    }

    /// Any key of the top of a configuration file, tables as a whole.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> ConfigBuilder {
        self.tables.insert(key.to_owned(), value.into());
        self
    }

    /// Check everything. Relative paths are below the working directory.
    ///
    /// # Errors
    /// Everything that is wrong; lines are those of the file that it would be.
    pub fn build(&self) -> Result<Config, ConfigError> {
        let base = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        Config::from_value(&self.tables, &base)
    }
}

impl ServiceBuilder {
    /// An onion address by the name that it has in logs, in status and in the state directory,
    /// where its key is kept and made if there is none.
    pub fn new(name: &str) -> ServiceBuilder {
        ServiceBuilder { table: Table::new() }.set("name", name)
    }

    /// Its key is in this file, which has to be there.
    #[must_use]
    pub fn key(self, file: impl AsRef<Path>) -> ServiceBuilder {
        self.set("key", path(file.as_ref()))
    }

    /// Serve this port too.
    #[must_use]
    pub fn port(mut self, port: PortBuilder) -> ServiceBuilder {
        push(&mut self.table, "port", port.table);
        self
    }

    /// Any key of `[[service]]`.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> ServiceBuilder {
        self.table.insert(key.to_owned(), value.into());
        self
    }
}

impl PortBuilder {
    /// The port that clients ask for.
    pub fn new(virtual_port: u16) -> PortBuilder {
        PortBuilder { table: Table::new() }.set("virtual", i64::from(virtual_port))
    }

    /// A server: a [`crate::plane::config::BackendAddress`], or a text as a file has it.
    #[must_use]
    pub fn backend(mut self, address: impl Display) -> PortBuilder {
        push(&mut self.table, "backends", address.to_string());
        self
    }

    /// A part of this program: whoever takes from the inbox of this name
    /// ([`crate::plane::handler::Handlers::add`]).
    #[must_use]
    pub fn handler(self, name: &str) -> PortBuilder {
        self.backend(format_args!("handler:{name}"))
    }

    /// Any key of `[[service.port]]`.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> PortBuilder {
        self.table.insert(key.to_owned(), value.into());
        self
    }
}

/// A path as a text. What is no Unicode is replaced: the file is then missing, with its name told.
fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Put a value at the end of the list `key`, or in place of what is no list.
fn push(table: &mut Table, key: &str, value: impl Into<Value>) {
    let place = table.entry(key.to_owned()).or_insert_with(|| Value::Array(Vec::new()));
    match place {
        Value::Array(list) => list.push(value.into()),
        other => *other = Value::Array(vec![value.into()]),
    }
}

#[cfg(test)]
mod tests {
    use super::{ConfigBuilder, PortBuilder, ServiceBuilder};
    use crate::config::Instances;
    use crate::plane::config::{BackendAddress, PortTarget};

    #[test]
    fn a_program_says_in_types_what_a_file_says_in_tables() {
        let backend = BackendAddress::Localhost { port: 8080 };
        let web = PortBuilder::new(80).backend("127.0.0.1:80").backend(backend.clone());
        let app = PortBuilder::new(81).handler("app").set("queue_max", 7);
        let shop = ServiceBuilder::new("shop").key("shop.key").port(web).port(app);
        let hello = PortBuilder::new(80).set("hello", true);
        let builder = ConfigBuilder::new("/srv/state")
            .instances(3)
            .set("drain_s", 5)
            .service(shop)
            .service(ServiceBuilder::new("other").port(hello));
        let config = builder.build().expect("it is right");
        assert_eq!(config.state_dir.to_str(), Some("/srv/state"));
        assert_eq!((config.drain.as_secs(), config.turbo.instances), (5, Instances::Fixed(3)));
        let [shop, other] = &config.services[..] else { panic!("two services") };
        assert!(shop.key_path.as_ref().is_some_and(|key| key.is_absolute()));
        assert_eq!((shop.name.as_str(), other.name.as_str()), ("shop", "other"));
        let PortTarget::Backends(found) = &shop.ports[0].target else { panic!("backends") };
        assert_eq!((found.len(), &found[1].address), (2, &backend));
        let handler = BackendAddress::Handler("app".to_owned());
        assert!(shop.ports[1].target.any(|address| *address == handler));
        assert_eq!((shop.ports[1].virtual_first, shop.ports[1].queue_max), (81, 7));
        assert_eq!(other.ports[0].target, PortTarget::Hello);
    }

    #[test]
    fn what_a_program_has_wrong_is_told_by_its_key() {
        let port = PortBuilder::new(0).backend("::1:80").set("quque_max", 1);
        let config = ConfigBuilder::new("/srv").service(ServiceBuilder::new("a b").port(port));
        let error = config.build().expect_err("four mistakes");
        let mut keys: Vec<&str> = error.problems().iter().map(|one| one.key.as_str()).collect();
        keys.sort_unstable();
        let port = "service[0].port[0]";
        let wrong = ["backends[0]", "quque_max", "virtual"].map(|key| format!("{port}.{key}"));
        let [backends, queue, number] = &wrong;
        assert_eq!(keys, ["service[0].name", backends, queue, number]);
    }
}
