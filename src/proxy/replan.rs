//! A plan out of the one before it: what is the same is shared, what changed is new.
//!
//! Plans are immutable and swapped whole, so a request sees one or the other and never a mixture.
//! Names that resolve to other addresses use this, and so may whatever else changes endpoints.
//! Absent on purpose: deciding what changes, and closing what leaves.

use std::sync::Arc;

use crate::base::names::Name;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::service::Plan;
use crate::proxy::service::Route;
use crate::proxy::upstream::EndpointShape;
use crate::proxy::upstream::Upstream;

impl Plan {
    /// This plan with these endpoints, in this order, for the upstreams of these names.
    #[must_use]
    pub fn with_endpoints(&self, lists: Vec<(Name, Vec<EndpointShape>)>) -> Self {
        let mut upstreams = self.upstreams.clone();
        for (name, shapes) in lists {
            let named = upstreams.iter_mut().find(|at| at.settings.name == name);
            if let Some(upstream) = named {
                *upstream = Arc::new(upstream.revised(shapes));
            }
        }
        self.over(upstreams)
    }

    /// This plan without some of the endpoints that leave an upstream.
    #[must_use]
    pub fn without(&self, name: &Name, gone: &[Arc<Endpoint>]) -> Self {
        let without = |upstream: &Arc<Upstream>| match upstream.settings.name == *name {
            true => Arc::new(upstream.without(gone)),
            false => Arc::clone(upstream),
        };
        self.over(self.upstreams.iter().map(without).collect())
    }

    /// The upstream of this name.
    #[must_use]
    pub fn upstream(&self, name: &Name) -> Option<&Arc<Upstream>> {
        self.upstreams.iter().find(|at| at.settings.name == *name)
    }

    /// The routes over upstreams that are in the places of the old ones.
    fn over(&self, upstreams: Vec<Arc<Upstream>>) -> Self {
        let leads = |route: &Arc<Route>| {
            let mut pairs = self.upstreams.iter().zip(&upstreams);
            let pair = pairs.find(|(old, _)| Arc::ptr_eq(old, &route.upstream));
            match pair {
                Some((old, new)) if !Arc::ptr_eq(old, new) => Arc::new(Route {
                    settings: Arc::clone(&route.settings),
                    upstream: Arc::clone(new),
                    metrics: Arc::clone(&route.metrics),
                }),
                Some(_) | None => Arc::clone(route),
            }
        };
        let routes = self.routes.iter().map(leads).collect();
        Self {
            table: Arc::clone(&self.table),
            routes,
            upstreams,
        }
    }
}
