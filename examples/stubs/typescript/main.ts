// Asks a Penstock server for predictions with stubs that protoc has made: one by a call, then three over a stream.
import { credentials } from "@grpc/grpc-js";
import { PredictionServiceClient, PredictRequest, PredictResponse } from "./build/penstock_proto/v1/prediction";
import { Tensor } from "./build/penstock_proto/v1/tensor";

function request(income: number): PredictRequest {
  return PredictRequest.fromPartial({
    model: "lead_scoring",
    inputs: {
      lead_source: Tensor.fromPartial({ stringValues: ["paid_ads"] }),
      number_of_courses_viewed: Tensor.fromPartial({ intValues: [2] }),
      annual_income: Tensor.fromPartial({ doubleValues: [income] }),
    },
  });
}

function show(response: PredictResponse): void {
  const { model, version, outputs } = response;
  console.log(`${model} ${version}: ${outputs["probabilities"].floatValues[1].toFixed(4)}`);
}

const client = new PredictionServiceClient(process.argv[2], credentials.createInsecure());

client.predict(request(79276), (error, response) => {
  if (error) throw error;
  show(response);

  const stream = client.predictStream();
  stream.on("data", ({ results }) => {
    for (const result of results) {
      if (result.error) throw new Error(result.error.message);
      show(result.response);
    }
  });
  stream.on("error", (failure) => {
    throw failure;
  });
  stream.on("end", () => client.close());
  stream.write({ requests: [request(20000), request(79276), request(150000)], cancel: [] });
  stream.end();
});
