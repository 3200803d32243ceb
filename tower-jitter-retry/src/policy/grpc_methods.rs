//! The list of gRPC methods that may be called more than once.

use tower_fault_classify::__internals::ConfigError;

/// Names as `package.Service/Method`, and services as `package.Service/`, sorted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GrpcMethods(Vec<Box<str>>);

impl GrpcMethods {
    /// Parses the names. A leading slash is allowed, and `*` in place of the method means all
    /// methods of the service.
    pub(super) fn parse(names: Vec<String>) -> Result<Self, ConfigError> {
        let mut methods = Vec::with_capacity(names.len());
        for name in names {
            let method = name.strip_prefix('/').unwrap_or(&name);
            match method.split_once('/') {
                Some((service, "*")) if !service.is_empty() => methods.push(format!("{service}/").into()),
                Some((service, rest))
                    if !service.is_empty() && !rest.is_empty() && !rest.contains(['/', '*']) =>
                {
                    methods.push(method.into());
                }
                _ => {
                    let allowed = "`package.Service/Method` or `package.Service/*`";
                    return Err(ConfigError::new("idempotent_methods", name, allowed));
                }
            }
        }
        methods.sort_unstable();
        Ok(Self(methods))
    }

    /// Returns the names in the form in which a user writes them.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|name| if name.ends_with('/') { format!("{name}*") } else { name.to_string() })
    }

    /// Returns whether the list contains a path of the form `/package.Service/Method`.
    pub(crate) fn contains(&self, path: &str) -> bool {
        let Some(method) = path.strip_prefix('/') else { return false };
        let has = |name: &str| self.0.binary_search_by(|method| (**method).cmp(name)).is_ok();
        has(method) || method.find('/').is_some_and(|slash| has(&method[..=slash]))
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    fn methods(names: &[&str]) -> Result<GrpcMethods, ConfigError> {
        GrpcMethods::parse(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn method_matches_list_entry_or_listed_service() {
        let methods = methods(&["shop.Orders/Get", "/shop.Orders/List", "shop.Stock/*"]).unwrap();
        for path in ["/shop.Orders/Get", "/shop.Orders/List", "/shop.Stock/Get", "/shop.Stock/Put"] {
            assert!(methods.contains(path), "{path}");
        }
        for path in [
            "/shop.Orders/Put",
            "/shop.Orders/",
            "shop.Orders/Get",
            "/shop.Orders/Get/",
            "/",
            "",
            "/shop.Stocks/Get",
        ] {
            assert!(!methods.contains(path), "{path}");
        }
    }

    #[test]
    fn invalid_method_name_is_reported() {
        for name in [
            "",
            "/",
            "Get",
            "/Get",
            "//Get",
            "//*",
            "shop.Orders/",
            "shop.Orders/Get/Now",
            "*/Get/*",
            "*",
            "shop.Orders/G*",
        ] {
            let error = methods(&["shop.Stock/*", name]).unwrap_err();
            assert_eq!((error.field(), error.value()), ("idempotent_methods", &*format!("{name:?}")));
        }
    }
}
