// An extension that prints what it was told, with AWS's client for extensions.
use lambda_extension::*;
use std::sync::{Arc, Mutex};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let seen = Arc::new(Mutex::new(Vec::<String>::new()));
    let told = seen.clone();
    let telemetry = SharedService::new(service_fn(move |events: Vec<LambdaTelemetry>| {
        let told = told.clone();
        async move {
            for e in events {
                let text = match e.record {
                    LambdaTelemetryRecord::Function(line) => format!("Function({line})"),
                    other => format!("{other:?}").split_whitespace().next().unwrap_or_default().to_string(),
                };
                told.lock().unwrap().push(text);
            }
            Ok::<(), Error>(())
        }
    }));
    let events = service_fn(move |event: LambdaEvent| {
        let seen = seen.clone();
        async move {
            match event.next {
                NextEvent::Invoke(e) => println!("rust invoked for {}", e.request_id),
                NextEvent::Shutdown(e) => println!("rust ends with {}: {}", e.shutdown_reason, seen.lock().unwrap().join(" ")),
            }
            Ok::<(), Error>(())
        }
    });
    Extension::new()
        .with_events_processor(events)
        .with_telemetry_processor(telemetry)
        .with_telemetry_types(&["platform", "function"])
        .with_telemetry_buffering(LogBuffering { timeout_ms: 25, max_bytes: 262_144, max_items: 1_000 })
        .run()
        .await
}
