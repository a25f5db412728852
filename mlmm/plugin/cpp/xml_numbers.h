// What the XML of both forces has in common: numbers as base64, and a committee.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "committee.h"
#include "openmm/OpenMMException.h"
#include "openmm/serialization/SerializationNode.h"

namespace mlmm {

std::string encode(const std::vector<float>& values);
std::string encode(const std::vector<double>& values);
std::string encode(const std::vector<int>& values);
// Throws an OpenMMException for other characters.
template <class T>
std::vector<T> decode(const std::string& text);

void write_committee(const Committee& committee, OpenMM::SerializationNode& node);
// Throws an OpenMMException where it is incomplete.
std::shared_ptr<const Committee> read_committee(const OpenMM::SerializationNode& node);

}  // namespace mlmm
