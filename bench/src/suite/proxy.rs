//! Baton as a proxy, against nginx that passes on to the same backend without asking who it is.

use std::path::Path;

use tempfile::TempDir;

use super::Extent;
use super::rounds::{Case, Measured, NO_ACCESS_LOG, NO_BUFFER, PAGE, Side, alternate, plan};
use crate::load::Plan;
use crate::server::{Engine, Server};
use crate::{Failure, note};

/// What a case asks for of those who come by.
struct Proxied {
    case: Case,
    /// Settings of the backend's, besides where it is.
    upstream: &'static str,
}

const CASES: [Proxied; 4] = [
    Proxied {
        case: Case {
            name: "nobody is asked for",
            settings: &[NO_ACCESS_LOG],
            batch: PAGE,
            forged: false,
            target: None,
        },
        upstream: "require = 'none'",
    },
    Proxied {
        case: Case {
            name: "default buffer, pages of 8",
            settings: &[NO_ACCESS_LOG],
            batch: PAGE,
            forged: false,
            target: Some(0.90),
        },
        upstream: "require = 'any'",
    },
    Proxied {
        case: Case {
            name: "the same with a JWT",
            settings: &[NO_ACCESS_LOG],
            batch: PAGE,
            forged: false,
            target: None,
        },
        upstream: "require = 'any', jwt_audience = 'things'",
    },
    Proxied {
        case: Case {
            name: "every request rotates",
            settings: &[NO_ACCESS_LOG, NO_BUFFER],
            batch: 1,
            forged: false,
            target: None,
        },
        upstream: "require = 'any'",
    },
];

pub(super) fn measure(extent: Extent, program: Option<&Path>) -> Result<Vec<Measured>, Failure> {
    // It answers whatever it is asked, with as little work as can be.
    let backend = Server::trivial()?;
    let backend = &backend.target.authority;
    CASES.iter().map(|proxied| turns(proxied, backend, extent, program)).collect()
}

fn turns(proxied: &Proxied, backend: &str, extent: Extent, program: Option<&Path>) -> Result<Measured, Failure> {
    let Proxied { case, upstream } = proxied;
    let name = format!("proxy, {}", case.name);
    note(&name);
    let plan = Plan { path: "/things".to_owned(), ..plan(extent, case.batch) };
    let of_baton = Plan { made_up: false, ..plan.clone() };
    let folder = TempDir::new().map_err(|error| Failure::Io("a temporary folder".into(), error))?;
    let nginx = Side::new(Server::nginx(folder.path(), backend)?, plan, Some(folder))?;
    let upstream = format!("upstream=[{{ targets = ['http://{backend}'], {upstream} }}]");
    let settings: Vec<&str> = case.settings.iter().copied().chain([&*upstream]).collect();
    let baton = Side::baton(&Engine::Sqlite, &settings, program, of_baton)?;
    alternate(name, case, nginx, baton, extent)
}
