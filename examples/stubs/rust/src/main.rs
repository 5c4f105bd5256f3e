//! Asks a Penstock server for predictions with stubs that the build has made: one by a call, then three over a stream.

use std::collections::HashMap;

use penstock::v1::prediction_service_client::PredictionServiceClient;
use penstock::v1::{predict_result, PredictRequest, PredictResponse, PredictStreamRequest, Tensor};

mod google {
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}
mod penstock {
    pub mod v1 {
        tonic::include_proto!("penstock.v1");
    }
}

fn request(income: f64) -> PredictRequest {
    let text = Tensor { string_values: vec!["paid_ads".into()], ..Default::default() };
    let number = Tensor { int_values: vec![2], ..Default::default() };
    let money = Tensor { double_values: vec![income], ..Default::default() };
    PredictRequest {
        model: "lead_scoring".into(),
        inputs: HashMap::from([
            ("lead_source".into(), text),
            ("number_of_courses_viewed".into(), number),
            ("annual_income".into(), money),
        ]),
        ..Default::default()
    }
}

fn show(response: &PredictResponse) {
    let probability = response.outputs["probabilities"].float_values[1];
    println!("{} {}: {probability:.4}", response.model, response.version);
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let target = std::env::args().nth(1).ok_or("usage: stubs HOST:PORT")?;
    let mut client = PredictionServiceClient::connect(format!("http://{target}")).await?;

    show(client.predict(request(79276.0)).await?.get_ref());

    let requests = [20000.0, 79276.0, 150000.0].map(request).to_vec();
    let message = PredictStreamRequest { requests, ..Default::default() };
    let mut stream = client.predict_stream(tokio_stream::iter([message])).await?.into_inner();
    while let Some(message) = stream.message().await? {
        for result in message.results {
            match result.result {
                Some(predict_result::Result::Response(response)) => show(&response),
                failed => return Err(format!("{failed:?}").into()),
            }
        }
    }
    Ok(())
}
