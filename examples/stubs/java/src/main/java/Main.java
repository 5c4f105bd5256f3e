import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.stub.StreamObserver;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import penstock.v1.PredictRequest;
import penstock.v1.PredictResponse;
import penstock.v1.PredictResult;
import penstock.v1.PredictStreamRequest;
import penstock.v1.PredictStreamResponse;
import penstock.v1.PredictionServiceGrpc;
import penstock.v1.Tensor;

/** Asks a Penstock server for predictions with stubs that the build has made: one by a call, then three over a stream. */
public final class Main {
    static PredictRequest request(double income) {
        return PredictRequest.newBuilder()
            .setModel("lead_scoring")
            .putInputs("lead_source", Tensor.newBuilder().addStringValues("paid_ads").build())
            .putInputs("number_of_courses_viewed", Tensor.newBuilder().addIntValues(2).build())
            .putInputs("annual_income", Tensor.newBuilder().addDoubleValues(income).build())
            .build();
    }

    static void show(PredictResponse response) {
        float probability = response.getOutputsOrThrow("probabilities").getFloatValues(1);
        System.out.printf("%s %s: %.4f%n", response.getModel(), response.getVersion(), probability);
    }

    /** Shows the results of a stream, and tells when it is over. */
    static final class Shown implements StreamObserver<PredictStreamResponse> {
        final CompletableFuture<Void> over = new CompletableFuture<>();

        @Override
        public void onNext(PredictStreamResponse message) {
            for (PredictResult result : message.getResultsList()) {
                if (result.hasError()) {
                    throw new IllegalStateException(result.getError().getMessage());
                }
                show(result.getResponse());
            }
        }

        @Override
        public void onError(Throwable failure) {
            over.completeExceptionally(failure);
        }

        @Override
        public void onCompleted() {
            over.complete(null);
        }
    }

    public static void main(String[] arguments) throws Exception {
        ManagedChannel channel =
            Grpc.newChannelBuilder(arguments[0], InsecureChannelCredentials.create()).build();
        try {
            var blocking = PredictionServiceGrpc.newBlockingStub(channel).withDeadlineAfter(10, TimeUnit.SECONDS);
            show(blocking.predict(request(79276)));

            var shown = new Shown();
            var requests = PredictionServiceGrpc.newStub(channel).predictStream(shown);
            requests.onNext(
                PredictStreamRequest.newBuilder()
                    .addRequests(request(20000))
                    .addRequests(request(79276))
                    .addRequests(request(150000))
                    .build());
            requests.onCompleted();
            shown.over.get(10, TimeUnit.SECONDS);
        } finally {
            channel.shutdownNow().awaitTermination(10, TimeUnit.SECONDS);
        }
    }
}
