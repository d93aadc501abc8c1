//! A function that does what its event asks for, with AWS's runtime client for Rust.
//! ANSWERS, a variable, says how its handler answers.
use lambda_runtime::streaming::{channel, Body, Response};
use lambda_runtime::{run, service_fn, tracing, Diagnostic, Error, LambdaEvent, MetadataPrelude};
use serde_json::{json, Value};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Chosen names its own type and message.
struct Chosen(String);

impl std::fmt::Debug for Chosen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Chosen> for Diagnostic {
    fn from(e: Chosen) -> Diagnostic {
        Diagnostic { error_type: "Chosen".into(), error_message: e.0 }
    }
}

impl From<Error> for Chosen {
    fn from(e: Error) -> Chosen {
        Chosen(e.to_string())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    println!("main begins");
    tracing::init_default_subscriber();
    match std::env::var("ANSWERS").as_deref() {
        Ok("chosen errors") => run(service_fn(chosen)).await,
        Ok("streams") => run(service_fn(streamed)).await,
        _ => run(service_fn(plain)).await,
    }
}

async fn chosen(event: LambdaEvent<Value>) -> Result<Value, Chosen> {
    Ok(plain(event).await?)
}

async fn plain(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let (event, context) = event.into_parts();
    match event["do"].as_str().unwrap_or_default() {
        "fail" => Err("boom ü".into()),
        "number" => Ok(json!("x".parse::<i32>()?)),
        "panic" => panic!("at the disco"),
        "exit" => std::process::exit(3),
        "log" => {
            tracing::debug!("a debug line");
            tracing::info!(answer = 42, "an info line");
            tracing::error!("an error line");
            Ok(Value::Null)
        }
        "nothing" => Ok(Value::Null),
        "context" => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
            let custom = context.client_context.map(|c| c.custom);
            Ok(json!({
                "id": context.request_id, "name": context.env_config.function_name, "version": context.env_config.version,
                "arn": context.invoked_function_arn, "memory": context.env_config.memory.to_string(), "group": context.env_config.log_group,
                "stream": context.env_config.log_stream, "left": context.deadline.saturating_sub(now), "custom": custom,
                "trace": context.xray_trace_id, "variable": std::env::var("_X_AMZN_TRACE_ID").ok(), "tenant": context.tenant_id,
            }))
        }
        _ => Ok(event),
    }
}

async fn streamed(event: LambdaEvent<Value>) -> Result<Response<Body>, Error> {
    let (mut sender, body) = channel();
    let fails = event.payload["do"] == "fail";
    tokio::spawn(async move {
        for part in ["one ", "two"] {
            if sender.send_data(part.into()).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if fails {
            sender.abort();
        }
    });
    Ok(Response { metadata_prelude: MetadataPrelude::default(), stream: body })
}
