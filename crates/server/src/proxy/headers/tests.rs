use proptest::prelude::*;

use super::*;

fn secrets() -> Secrets {
    let names = HeaderNames { access_token: "x-token".into(), ..HeaderNames::default() };
    Secrets {
        names: names.all().iter().filter(|name| **name != "authorization").map(|name| name.parse().unwrap()).collect(),
        fields: vec![names],
        cookies: vec!["__Host-baton".into()],
        params: vec!["x-token".into(), "client".into(), "uid".into()],
    }
}

#[test]
fn other_cookies_stay() {
    let without = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, text.parse().unwrap());
        secrets().take_from_request(&mut headers);
        headers.get(COOKIE).map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(without("__Host-baton=secret"), None);
    assert_eq!(without("a=b"), Some("a=b".into()));
    assert_eq!(without("a=b;__Host-baton=secret;  __Host-baton=again; c"), Some("a=b; c".into()));
    assert_eq!(without("__Host-baton2=x; =__Host-baton"), Some("__Host-baton2=x; =__Host-baton".into()));
    let mut headers = HeaderMap::new();
    headers.append(SET_COOKIE, "__Host-baton=made-up; Path=/".parse().unwrap());
    headers.append(SET_COOKIE, "own=1".parse().unwrap());
    secrets().take_from_response(&mut headers);
    assert_eq!(headers.get_all(SET_COOKIE).iter().collect::<Vec<_>>(), ["own=1"]);
}

#[test]
fn credentials_of_the_backend_itself_stay() {
    let kept = |value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        secrets().take_from_request(&mut headers);
        headers.contains_key(AUTHORIZATION)
    };
    assert!(kept("Basic YTpi") && kept("Bearer some-other-token") && kept("Bearer e30="));
    // {"x-token":"x"}
    assert!(!kept("Bearer eyJ4LXRva2VuIjoieCJ9"));
}

#[test]
fn other_parameters_stay_as_they_are() {
    let without = |query: &str| secrets().without_params(query);
    assert_eq!(without("a=%20&b"), None);
    assert_eq!(without("a=%20&x-token=t&b&uid=u&clients=1"), Some("a=%20&b&clients=1".into()));
    assert_eq!(without("X-To%6Ben=t"), Some(String::new()));
}

#[test]
fn an_answer_with_two_lengths_keeps_none() {
    let mut headers = HeaderMap::new();
    for (name, value) in [(CONTENT_LENGTH, "5"), (TRANSFER_ENCODING, "chunked"), (CONNECTION, "close, x-a")] {
        headers.insert(name, value.parse().unwrap());
    }
    headers.insert("x-a", "1".parse().unwrap());
    headers.insert("access-control-allow-origin", "*".parse().unwrap());
    headers.insert("x-b", "1".parse().unwrap());
    to_client(&mut headers, Some(&secrets()));
    assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-b"]);
}

proptest! {
    /// However a client spells them, and whatever it names in `Connection`: what a backend finds under the names that matter, with
    /// dashes and underscores taken for the same, is what was written here.
    #[test]
    fn no_spelling_of_a_name_that_matters_comes_through(
        names in proptest::collection::vec((0_usize..16, any::<u32>(), any::<bool>()), 1..12),
    ) {
        let secrets = secrets();
        let matter: Vec<HeaderName> = IDENTITY.into_iter().chain(ORIGIN_CLAIMS).chain(secrets.names.clone()).collect();
        let mut parts = http::Request::new(()).into_parts().0;
        for (which, underscores, is_named) in names {
            let name: String = matter[which % matter.len()].as_str().chars().enumerate()
                .map(|(at, c)| if c == '-' && underscores >> (at % 32) & 1 == 1 { '_' } else { c })
                .collect();
            parts.headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("claimed"));
            if is_named {
                parts.headers.append(CONNECTION, HeaderValue::from_str(&name).unwrap());
            }
        }
        let origin = Origin { client: None, peer: None, is_https: false, host: None };
        to_target(&mut parts, &origin, None, Some(&secrets));
        prop_assert!(parts.headers.values().all(|value| value != "claimed"), "{:?}", parts.headers);
    }
}
