//! Paths as routes: rules, what is learned, and that nobody can make more of them than there is room for.

use std::collections::HashSet;

use bytes::Bytes;
use pod2pod_user::metrics::{
    Metrics,
    http::DEFAULT_LABEL_SETS,
    routes::{
        Config, DEFAULT_MAX_VALUES, MAX_NAME, MAX_PLACES, MAX_RULES, MAX_SEGMENTS, Mode, OTHER, Routes, Rule,
        RuleError,
    },
};

use super::{record, with};

fn rules(texts: &[&str]) -> Vec<Rule> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn learned() -> Routes {
    Routes::new(Config { mode: Mode::Learned, rules: Vec::new() })
}

fn name(routes: &mut Routes, path: &str) -> String {
    let id = routes.of(Some(path.as_bytes())).unwrap();
    routes.name(id).to_owned()
}

#[test]
fn the_first_rule_that_matches_names_the_route() {
    let rules = rules(&["/", "/users/me", "/users/{id}", "/users/{id}/*", "/static/**", "/a//b"]);
    let mut routes = Routes::new(Config { mode: Mode::Rules, rules });
    let mut check = |path, expected: &str| assert_eq!(name(&mut routes, path), expected, "{path}");
    check("/", "/");
    check("/users/me", "/users/me");
    check("/users/7", "/users/{id}");
    check("/users/7/cart", "/users/{id}/*");
    check("/users/", OTHER);
    check("/users/7/cart/3", OTHER);
    check("/static", "/static/**");
    check("/statics", OTHER);
    check("/static/", "/static/**");
    check("/static/a/b/c", "/static/**");
    check("/a//b", "/a//b");
    check("/elsewhere", OTHER);
    check("*", OTHER);
}

#[test]
fn a_text_that_is_no_rule_is_refused() {
    let check = |text: &str, expected| assert_eq!(text.parse::<Rule>().unwrap_err(), expected, "{text}");
    check("users", RuleError::NoPath);
    check("", RuleError::NoPath);
    check("/a/**/b", RuleError::RestInside);
    for text in ["/{", "/}", "/{}", "/a{id}", "/{a}{b}", "/{a{b}}", "/a*", "/***", "/{*}"] {
        check(text, RuleError::Brace);
    }
    assert_eq!("/users/{id}/**".parse::<Rule>().unwrap().to_string(), "/users/{id}/**");
}

#[test]
fn identifiers_are_found_by_their_looks() {
    let mut routes = learned();
    for id in [
        "7",
        "1842",
        "2026-11-21",
        "550e8400-e29b-41d4-a716-446655440000",
        "9f0c2b7d",
        "deadbeef01",
        "a1b2c3d4e5f6g7h8",
        "user%40example.com",
        "a@b",
        "dG9rZW4=",
        "été",
        "x".repeat(MAX_NAME + 1).as_str(),
    ] {
        assert_eq!(name(&mut routes, &format!("/users/{id}/cart")), "/users/{id}/cart", "{id}");
    }
    for word in
        ["cart", "v1", "api2", "index.html", "deadbeef", "x".repeat(MAX_NAME).as_str(), "s3", "oauth2"]
    {
        assert_eq!(name(&mut learned(), &format!("/{word}")), format!("/{word}"), "{word}");
    }
}

#[test]
fn a_place_tells_so_many_values_apart_and_calls_the_next_any() {
    let mut routes = learned();
    let word = |index: usize| format!("item-{}", char::from(b'a' + index as u8));
    for index in 0..DEFAULT_MAX_VALUES {
        assert_eq!(name(&mut routes, &format!("/shop/{}", word(index))), format!("/shop/{}", word(index)));
    }
    assert_eq!(routes.stats().values_over_limit, 0);
    assert_eq!(name(&mut routes, &format!("/shop/{}/buy", word(DEFAULT_MAX_VALUES))), "/shop/{any}/buy");
    assert_eq!(routes.stats().values_over_limit, 1);
    assert_eq!(name(&mut routes, "/shop/item-a"), "/shop/item-a", "what is known stays");
}

#[test]
fn long_paths_end_in_rest() {
    let mut routes = learned();
    let path = |segments: usize| "/a".repeat(segments);
    assert_eq!(name(&mut routes, &path(MAX_SEGMENTS)), path(MAX_SEGMENTS));
    assert_eq!(routes.stats().segments_over_limit, 0);
    assert_eq!(name(&mut routes, &path(MAX_SEGMENTS + 1)), format!("{}/{{rest}}", path(MAX_SEGMENTS)));
    assert_eq!(name(&mut routes, &path(MAX_SEGMENTS + 9)), format!("{}/{{rest}}", path(MAX_SEGMENTS)));
    assert_eq!(routes.stats().segments_over_limit, 2);
}

#[test]
fn an_outsider_cannot_make_more_routes_than_there_is_room_for() {
    let mut routes = learned();
    let mut rng = support::rng::Rng::new(7);
    let mut seen = HashSet::new();
    for _ in 0..200_000 {
        let segments = 1 + rng.below(9);
        // More words than a place tells apart, and few enough that every place meets each of them.
        let words = (0..segments).map(|_| char::from(b'a' + rng.below(DEFAULT_MAX_VALUES + 2) as u8));
        let path: String = words.map(|word| format!("/{word}")).collect();
        seen.insert(name(&mut routes, &path));
    }
    // Each place is the end of a route, and of one that goes on behind it.
    assert!(seen.len() <= 4 * MAX_PLACES, "{} routes", seen.len());
    assert!(routes.stats().places_over_limit > 0, "the tree was not filled");
    assert_eq!(name(&mut learned(), "/fine"), "/fine");
}

#[test]
fn the_label_is_there_only_if_it_is_wanted() {
    let text = |config: &Config| {
        let (metrics, mut http) = Metrics::new(config, DEFAULT_LABEL_SETS).unwrap();
        http.observe(&record(with(|e| {
            e.request.as_mut().unwrap().target = Bytes::from_static(b"/cart/7?token=x");
        })));
        http.publish();
        String::from_utf8(metrics.render()).unwrap()
    };
    assert!(!text(&Config::default()).contains("http_route"));
    let labelled = text(&Config { mode: Mode::Learned, rules: Vec::new() });
    assert!(labelled.contains("http_route=\"/cart/{id}\""), "{labelled}");
    assert!(!labelled.contains("token"), "{labelled}");
    let ruled = text(&Config { mode: Mode::Rules, rules: rules(&["/cart/**"]) });
    assert!(ruled.contains("http_route=\"/cart/**\""), "{ruled}");
}

#[test]
fn a_list_of_templates_is_read() {
    let read =
        |items: &[&str]| Config::read(&items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>());
    assert_eq!(read(&["off"]), Some(Config::default()));
    assert_eq!(read(&["auto"]), Some(Config { mode: Mode::Learned, rules: Vec::new() }));
    let both = Config { mode: Mode::Learned, rules: rules(&["/a"]) };
    assert_eq!(read(&["/a", "auto"]), Some(both));
    assert_eq!(read(&["/a"]), Some(Config { mode: Mode::Rules, rules: rules(&["/a"]) }));
    assert_eq!((read(&[]), read(&["a"]), read(&["/a", "off"])), (None, None, None));
    assert_eq!(read(&vec!["/a"; MAX_RULES]).unwrap().rules.len(), MAX_RULES);
    assert_eq!(read(&vec!["/a"; MAX_RULES + 1]), None);
}
