// Asks a Penstock server for predictions with stubs that protoc has made: one by a call, then three over a stream.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	penstockv1 "example.com/stubs/build/penstock_proto/v1"
)

func request(income float64) *penstockv1.PredictRequest {
	return &penstockv1.PredictRequest{
		Model: "lead_scoring",
		Inputs: map[string]*penstockv1.Tensor{
			"lead_source":              {StringValues: []string{"paid_ads"}},
			"number_of_courses_viewed": {IntValues: []int64{2}},
			"annual_income":            {DoubleValues: []float64{income}},
		},
	}
}

func show(response *penstockv1.PredictResponse) {
	fmt.Printf("%s %s: %.4f\n", response.Model, response.Version, response.Outputs["probabilities"].FloatValues[1])
}

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	client := penstockv1.NewPredictionServiceClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	response, err := client.Predict(ctx, request(79276))
	if err != nil {
		log.Fatal(err)
	}
	show(response)

	stream, err := client.PredictStream(ctx)
	if err != nil {
		log.Fatal(err)
	}
	requests := []*penstockv1.PredictRequest{request(20000), request(79276), request(150000)}
	if err := stream.Send(&penstockv1.PredictStreamRequest{Requests: requests}); err != nil {
		log.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		log.Fatal(err)
	}
	for {
		message, err := stream.Recv()
		if err == io.EOF {
			return
		}
		if err != nil {
			log.Fatal(err)
		}
		for _, result := range message.Results {
			if result.GetError() != nil {
				log.Fatal(result.GetError())
			}
			show(result.GetResponse())
		}
	}
}
