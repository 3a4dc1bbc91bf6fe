// Data-parallel training: each rank works on its share of every batch, one allreduce sums the
// gradients.
//
//   sumac run -n 4 -- ./build/bin/train_digits
//
// Every rank starts from the same weights and sees the same order of batches, so the loss curve
// does not depend on the number of ranks, but for the order in which gradients are added up.

#include <cstdio>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "nlohmann/json.hpp"

#include "collectives/communicator.h"
#include "examples/train_digits/digits.h"
#include "examples/train_digits/model.h"

namespace {

using sumac::collectives::Communicator;
using sumac::collectives::DataType;
using sumac::collectives::ReduceOp;
using sumac::examples::DigitsSplit;
using sumac::examples::Model;

struct Options {
  std::string data;
  int epochs = 30;
  int batch = 32;  // images, over all ranks together
  double rate = 0.05;
  double momentum = 0.9;
  int hidden = 48;
  uint32_t seed = 1;
  bool json = false;
};

struct Epoch {
  double loss = 0;      // mean cross-entropy over the training images
  double accuracy = 0;  // on the test images
};

class Trainer {
 public:
  Trainer(const Options& options, const DigitsSplit& data, Communicator& communicator)
      : options_(options),
        data_(data),
        communicator_(communicator),
        model_(options.hidden, options.seed),
        velocity_(model_.parameters().size()) {}

  absl::StatusOr<Epoch> Run() {
    Epoch epoch;
    for (int first = 0; first < data_.train.size(); first += options_.batch) {
      const int end = std::min(first + options_.batch, data_.train.size());
      if (auto stepped = Step(first, end, epoch.loss); !stepped.ok()) return stepped;
    }
    epoch.loss /= data_.train.size();
    epoch.accuracy = TestAccuracy();
    return epoch;
  }

 private:
  absl::Status Step(int first, int end, double& loss) {
    // The gradient, and the loss behind it: one allreduce for both.
    std::vector<double> sums(velocity_.size() + 1);
    const std::span<double> gradient(sums.data(), velocity_.size());
    for (int i = first + communicator_.rank(); i < end; i += communicator_.size()) {
      sums.back() += model_.AddGradient(data_.train.image(i),
                                        data_.train.labels[static_cast<size_t>(i)], gradient);
    }
    auto summed = communicator_.AllReduce(sums.data(), sums.data(), sums.size(), DataType::kFloat64,
                                          ReduceOp::kSum);
    if (!summed.ok()) return summed;
    loss += sums.back();
    const std::span<double> parameters = model_.parameters();
    for (size_t i = 0; i < velocity_.size(); ++i) {
      velocity_[i] = options_.momentum * velocity_[i] - options_.rate * gradient[i] / (end - first);
      parameters[i] += velocity_[i];
    }
    return absl::OkStatus();
  }

  double TestAccuracy() {
    int right = 0;
    for (int i = 0; i < data_.test.size(); ++i) {
      right += model_.Classify(data_.test.image(i)) == data_.test.labels[static_cast<size_t>(i)];
    }
    return static_cast<double>(right) / data_.test.size();
  }

  const Options& options_;
  const DigitsSplit& data_;
  Communicator& communicator_;
  Model model_;
  std::vector<double> velocity_;
};

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "train_digits: %s\n", status.ToString().c_str());
  return 1;
}

int Train(const Options& options) {
  const auto data = sumac::examples::LoadDigits(sumac::examples::FindDigits(options.data));
  if (!data.ok()) return Fail(data.status());
  auto communicator = Communicator::FromEnvironment();
  if (!communicator.ok()) return Fail(communicator.status());
  const bool prints = (*communicator)->rank() == 0;
  const bool table = prints && !options.json;
  if (table) {
    std::printf(
        "# %d images to train, %d to test, %d ranks over %s\n# epoch      loss  test accuracy\n",
        data->train.size(), data->test.size(), (*communicator)->size(),
        (*communicator)->domain().device_name().c_str());
  }
  nlohmann::ordered_json curve = nlohmann::ordered_json::array();
  Trainer trainer(options, *data, **communicator);
  for (int number = 1; number <= options.epochs; ++number) {
    const auto epoch = trainer.Run();
    if (!epoch.ok()) return Fail(epoch.status());
    curve.push_back({{"epoch", number}, {"loss", epoch->loss}, {"test_accuracy", epoch->accuracy}});
    if (table) {
      std::printf("%7d  %.6f         %.4f\n", number, epoch->loss, epoch->accuracy);
      std::fflush(stdout);
    }
  }
  if (table) std::printf("test accuracy %.4f\n", curve.back()["test_accuracy"].get<double>());
  if (prints && options.json) std::printf("%s\n", curve.dump(2).c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Trains a small classifier of handwritten digits on several ranks", "train_digits");
  app.add_option(
      "--data", options.data,
      "the digits, as CSV; default: SUMAC_DIGITS, or ../share/sumac/digits.csv beside the "
      "program's folder");
  app.add_option("--epochs", options.epochs, "default 30")->check(CLI::Range(1, 100000));
  app.add_option("--batch", options.batch, "images a step, over all ranks; default 32")
      ->check(CLI::Range(1, 1000000));
  app.add_option("--rate", options.rate, "learning rate; default 0.05")->check(CLI::PositiveNumber);
  app.add_option("--momentum", options.momentum, "default 0.9")->check(CLI::Range(0.0, 1.0));
  app.add_option("--hidden", options.hidden, "hidden units; default 48")
      ->check(CLI::Range(1, 4096));
  app.add_option("--seed", options.seed, "of the first weights; default 1");
  app.add_flag("--json", options.json, "print the curve as JSON");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return Train(options);
}
