//! The document and the router say the same.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

fn document() -> Value {
    serde_json::from_str(&DOCUMENT.to_pretty_json().unwrap()).unwrap()
}

/// Method, path and operation of everything in the document.
fn documented() -> Vec<(String, String, Value)> {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, item): (&String, &Value)| {
        let item = item.as_object().unwrap().clone();
        let path = path.clone();
        item.into_iter().map(move |(method, operation)| (method, path.clone(), operation))
    };
    paths.iter().flat_map(of_path).collect()
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                found.insert(reference.clone());
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_route_is_in_the_document_and_the_other_way_round() {
    let routed: Vec<&str> = DOCUMENT
        .paths
        .paths
        .values()
        .flat_map(methods)
        .filter_map(|(_, operation)| operation.operation_id.as_deref())
        .collect();
    let documented = documented();
    // A method that `methods` does not know would stand in the document and be answered by nobody.
    assert_eq!(routed.len(), documented.len());
    for (method, path, operation) in &documented {
        let id = operation["operationId"].as_str().unwrap();
        assert!(routed.contains(&id), "{method} {path}");
        assert!(handler(id, MethodFilter::GET).is_some(), "{id} has no handler");
    }
    let unique: BTreeSet<&str> = routed.iter().copied().collect();
    assert_eq!(unique.len(), routed.len(), "an operationId stands twice");
    assert_eq!(unique.len(), 20);
}

#[test]
fn the_document_is_whole() {
    let document = document();
    assert_eq!(document["openapi"].as_str().unwrap().get(..4), Some("3.1."));
    let mut used = BTreeSet::new();
    references(&document, &mut used);
    for reference in &used {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in schemas.keys() {
        assert!(used.contains(&format!("#/components/schemas/{name}")), "nobody uses the schema {name}");
    }
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    assert_eq!(document["security"], serde_json::json!([{ "bearer": [] }]));
    for (method, path, operation) in documented() {
        assert!(operation["summary"].as_str().is_some_and(|words| !words.is_empty()), "{method} {path}");
        assert!(operation["responses"]["default"]["content"][problem::MEDIA_TYPE].is_object(), "{method} {path}");
        let open = operation.get("security").is_some();
        assert_eq!(open, path == "/openapi.json", "{method} {path}: who may call it?");
        let named: BTreeSet<&str> = path.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}')).collect();
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let described: BTreeSet<&str> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        assert_eq!(named, described, "{method} {path}");
    }
}

#[test]
fn requests_refuse_what_they_do_not_know() {
    let document = document();
    for (method, path, operation) in documented() {
        let Some(reference) = operation.pointer("/requestBody/content/application~1json/schema/$ref") else { continue };
        let schema = document.pointer(&reference.as_str().unwrap()[1..]).unwrap();
        assert_eq!(schema["additionalProperties"], false, "{method} {path}");
    }
}
