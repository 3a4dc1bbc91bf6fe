#include "examples/train_digits/model.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace sumac::examples {
namespace {

// Uniform in [-1, 1), the same with every standard library.
double Uniform(std::mt19937& random) { return random() / 2147483648.0 - 1; }

}  // namespace

Model::Model(int hidden, uint32_t seed)
    : hidden_(hidden),
      parameters_(static_cast<size_t>(hidden) * (kPixels + 1 + kClasses) + kClasses),
      activations_(static_cast<size_t>(hidden)),
      probabilities_(kClasses) {
  std::mt19937 random(seed);
  const size_t first_layer = static_cast<size_t>(hidden) * kPixels;
  const double first_scale = std::sqrt(6.0 / (kPixels + hidden));  // Glorot and Bengio, 2010
  const double second_scale = std::sqrt(6.0 / (hidden + kClasses));
  for (size_t i = 0; i < first_layer; ++i) parameters_[i] = first_scale * Uniform(random);
  double* second = &parameters_[first_layer + static_cast<size_t>(hidden)];
  for (int i = 0; i < kClasses * hidden; ++i) second[i] = second_scale * Uniform(random);
}

void Model::Forward(const double* image) {
  const double* w1 = parameters_.data();
  const double* b1 = w1 + static_cast<size_t>(hidden_) * kPixels;
  const double* w2 = b1 + hidden_;
  const double* b2 = w2 + static_cast<size_t>(kClasses) * hidden_;
  for (int h = 0; h < hidden_; ++h) {
    double sum = b1[h];
    for (int p = 0; p < kPixels; ++p) sum += w1[h * kPixels + p] * image[p];
    activations_[static_cast<size_t>(h)] = std::tanh(sum);
  }
  for (int c = 0; c < kClasses; ++c) {
    double sum = b2[c];
    for (int h = 0; h < hidden_; ++h)
      sum += w2[c * hidden_ + h] * activations_[static_cast<size_t>(h)];
    probabilities_[static_cast<size_t>(c)] = sum;
  }
  const double largest = *std::max_element(probabilities_.begin(), probabilities_.end());
  double total = 0;
  for (double& value : probabilities_) total += value = std::exp(value - largest);
  for (double& value : probabilities_) value /= total;
}

double Model::AddGradient(const double* image, int label, std::span<double> gradient) {
  Forward(image);
  const double* w2 = parameters_.data() + static_cast<size_t>(hidden_) * (kPixels + 1);
  double* g1 = gradient.data();
  double* gb1 = g1 + static_cast<size_t>(hidden_) * kPixels;
  double* g2 = gb1 + hidden_;
  double* gb2 = g2 + static_cast<size_t>(kClasses) * hidden_;
  const double loss = -std::log(probabilities_[static_cast<size_t>(label)] + 1e-300);
  probabilities_[static_cast<size_t>(label)] -= 1;  // softmax with cross-entropy: p - y
  for (int c = 0; c < kClasses; ++c) {
    const double error = probabilities_[static_cast<size_t>(c)];
    gb2[c] += error;
    for (int h = 0; h < hidden_; ++h)
      g2[c * hidden_ + h] += error * activations_[static_cast<size_t>(h)];
  }
  for (int h = 0; h < hidden_; ++h) {
    double error = 0;
    for (int c = 0; c < kClasses; ++c)
      error += probabilities_[static_cast<size_t>(c)] * w2[c * hidden_ + h];
    const double activation = activations_[static_cast<size_t>(h)];
    error *= 1 - activation * activation;  // derivative of tanh
    gb1[h] += error;
    for (int p = 0; p < kPixels; ++p) g1[h * kPixels + p] += error * image[p];
  }
  return loss;
}

int Model::Classify(const double* image) {
  Forward(image);
  return static_cast<int>(std::max_element(probabilities_.begin(), probabilities_.end()) -
                          probabilities_.begin());
}

}  // namespace sumac::examples
