// A small classifier: 64 pixels, one hidden layer with tanh, ten classes with softmax.
//
// All parameters are one vector, and so are their gradients: one allreduce averages them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "examples/train_digits/digits.h"

namespace sumac::examples {

class Model {
 public:
  // The same `seed` gives the same weights everywhere.
  Model(int hidden, uint32_t seed);

  std::span<double> parameters() { return parameters_; }
  // Adds the gradient of the cross-entropy of one image to `gradient`; returns that cross-entropy.
  double AddGradient(const double* image, int label, std::span<double> gradient);
  int Classify(const double* image);

 private:
  void Forward(const double* image);

  int hidden_;
  std::vector<double> parameters_;  // W1 (hidden x 64), b1, W2 (10 x hidden), b2
  std::vector<double> activations_;
  std::vector<double> probabilities_;
};

}  // namespace sumac::examples
