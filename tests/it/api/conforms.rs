//! Holds an answer against the OpenAPI document (JSON Schema, as far as the document uses it).

use std::collections::BTreeMap;

use serde_json::Value;

/// Asserts that an answer is as the document describes it: everything required is there, nothing is there that is not
/// described, and each value is of its kind.
pub fn conforms(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Err(why) = check(document, schema, value) {
        panic!("{at}: {why}");
    }
}

fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap(),
        None => schema,
    }
}

/// Properties and required names of an object's schema, through `allOf`.
fn members<'a>(
    document: &'a Value,
    schema: &'a Value,
    properties: &mut BTreeMap<&'a str, &'a Value>,
    required: &mut Vec<&'a str>,
) {
    let schema = resolved(document, schema);
    for part in schema["allOf"].as_array().into_iter().flatten() {
        members(document, part, properties, required);
    }
    properties.extend(schema["properties"].as_object().into_iter().flatten().map(|(name, of)| (name.as_str(), of)));
    required.extend(schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str));
}

fn check(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let schema = resolved(document, schema);
    if let Some(choices) = schema["oneOf"].as_array() {
        let reasons: Vec<String> = choices.iter().filter_map(|choice| check(document, choice, value).err()).collect();
        let fit = choices.len() - reasons.len();
        return if fit == 1 { Ok(()) } else { Err(format!("{fit} of oneOf fit: {}", reasons.join("; "))) };
    }
    if let Some(words) = schema["enum"].as_array() {
        return if words.contains(value) { Ok(()) } else { Err(format!("{value} is none of {words:?}")) };
    }
    if schema.get("allOf").is_some() || schema["type"] == "object" {
        let object = value.as_object().ok_or(format!("{value} is no object"))?;
        let (mut properties, mut required) = (BTreeMap::new(), Vec::new());
        members(document, schema, &mut properties, &mut required);
        if let Some(missing) = required.iter().find(|name| !object.contains_key(**name)) {
            return Err(format!("{missing} is missing"));
        }
        for (name, value) in object {
            let of = properties.get(name.as_str()).ok_or(format!("{name} is not described"))?;
            check(document, of, value).map_err(|why| format!("{name}: {why}"))?;
        }
        return Ok(());
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        other => return Err(format!("a schema without a type: {other}")),
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() || number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !kinds.contains(&kind) {
        return Err(format!("{kind} instead of {kinds:?}"));
    }
    if schema["format"] == "date-time" && !value.as_str().is_some_and(|text| text.ends_with('Z') && text.len() == 20) {
        return Err(format!("{value} is no time in UTC"));
    }
    let empty = Vec::new();
    value.as_array().unwrap_or(&empty).iter().try_for_each(|item| check(document, &schema["items"], item))
}
