//! Which backend a request is for.
//!
//! A backend may read a path in another way than it is written: with escapes resolved, slashes merged, capitals ignored, or
//! parameters cut off. So that nobody gets past what a path requires by spelling it differently, paths are compared in a canonical form,
//! and those are refused of which nobody can say what the backend will make of them.

use percent_encoding::percent_decode_str;

/// A path as it is compared: escapes resolved, slashes merged, backslashes as slashes, parameters (`;v=1`) cut off, no slash at
/// the end; empty for the root. `None` if it has to be refused.
pub(super) fn canonical(path: &str) -> Option<String> {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    if decoded.chars().any(char::is_control) {
        return None;
    }
    let mut canonical = String::with_capacity(decoded.len());
    for segment in decoded.split(['/', '\\']) {
        let name = segment.split(';').next().unwrap_or_default();
        match name {
            "." | ".." => return None,
            "" => {}
            name => {
                canonical.push('/');
                canonical.push_str(name);
            }
        }
    }
    Some(canonical)
}

/// The place of the route for this host and canonical path: one for the host before one for all, then the longest. `None` if
/// there is none, or if another one would be taken by somebody who ignores capitals.
pub(super) fn find<'r>(
    routes: impl Iterator<Item = (Option<&'r str>, &'r str)> + Clone,
    host: &str,
    path: &str,
) -> Option<usize> {
    let best = |fits: &dyn Fn(&str) -> bool| {
        routes
            .clone()
            .enumerate()
            .filter(|(_, (of, prefix))| of.is_none_or(|of| of == host) && fits(prefix))
            .max_by_key(|(_, (of, prefix))| (of.is_some(), prefix.len()))
            .map(|(place, _)| place)
    };
    let exact = best(&|prefix| is_below(path, prefix, |a, b| a == b));
    let lenient = best(&|prefix| is_below(path, prefix, str::eq_ignore_ascii_case));
    exact.filter(|_| exact == lenient)
}

fn is_below(path: &str, prefix: &str, same: fn(&str, &str) -> bool) -> bool {
    let Some((start, rest)) = path.split_at_checked(prefix.len()) else { return false };
    (rest.is_empty() || rest.starts_with('/')) && same(start, prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_path_are_one() {
        for (path, expected) in [
            ("/", ""),
            ("", ""),
            ("//", ""),
            ("/admin", "/admin"),
            ("/admin/", "/admin"),
            ("//admin//users", "/admin/users"),
            ("/%61dmin", "/admin"),
            ("/admin%2Fusers", "/admin/users"),
            ("/admin;jsessionid=1/users", "/admin/users"),
            ("/\\admin", "/admin"),
            ("/;/admin", "/admin"),
            ("/a.b/..c/d..", "/a.b/..c/d.."),
            ("/%ff", "/\u{fffd}"),
        ] {
            assert_eq!(canonical(path).as_deref(), Some(expected), "{path:?}");
        }
        for path in
            ["/public/../admin", "/./a", "/a/%2e%2E/b", "/a%2f..%2fb", "/a/..;x/b", "/a\\..\\b", "/a%00", "/%0d%0a"]
        {
            assert_eq!(canonical(path), None, "{path:?}");
        }
    }

    #[test]
    fn the_closest_route_is_taken() {
        let routes =
            [(None, ""), (None, "/admin"), (None, "/admin/open"), (Some("b.test"), ""), (Some("b.test"), "/x")];
        let found = |host: &str, path: &str| find(routes.into_iter(), host, path);
        assert_eq!(found("a.test", ""), Some(0));
        assert_eq!(found("a.test", "/administrators"), Some(0));
        assert_eq!(found("a.test", "/admin"), Some(1));
        assert_eq!(found("a.test", "/admin/users"), Some(1));
        assert_eq!(found("a.test", "/admin/open/a"), Some(2));
        assert_eq!(found("b.test", "/admin"), Some(3));
        assert_eq!(found("b.test", "/x"), Some(4));
        assert_eq!(find([(Some("b.test"), "")].into_iter(), "a.test", ""), None);
        // Somebody who ignores capitals would see the administrators' pages in it.
        assert_eq!(found("a.test", "/ADMIN/users"), None);
        assert_eq!(found("a.test", "/admin/Open"), None);
        assert_eq!(found("a.test", "/Other"), Some(0));
        assert_eq!(find([(None, "/ü")].into_iter(), "a", "/x"), None);
    }
}
