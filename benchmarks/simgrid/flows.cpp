// The six pieces of work of benchmarks/network.py in SimGrid's S4U, on the same links.
//
//     flows WORK P [TRAFFIC]        WORK: w1 w2 w3 w4 w5; TRAFFIC: lines "src dst bytes start_s", for w5
//
// Prints one JSON line: seconds of the main loop (all of Engine::run), messages, and the simulated
// seconds at which the last one ended; for w5 also when each flow ended, in the order of the file.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <simgrid/s4u.hpp>
#include <string>
#include <vector>

namespace sg4 = simgrid::s4u;

constexpr double GBIT = 125e6;       // 1 Gbit/s in bytes a second
constexpr double LATENCY = 25e-6;    // of a link
constexpr unsigned RACK = 16;        // hosts of a rack
constexpr double UPLINK = RACK / 4;  // an uplink's bandwidth, in links of a host: 4:1
constexpr uint64_t DENSE = 100'000'000, BLOCK = 200'000;

struct Flow {
  unsigned src, dst;
  uint64_t bytes;
  double start;
  double finish = 0;
};

std::vector<sg4::Host*> hosts;
std::vector<sg4::Mailbox*> boxes;
std::vector<Flow> flows;
unsigned long messages = 0;
int token = 0;

/// Hang P hosts on one switch, or on switches of 16 that hang on one.
void build(unsigned count, bool racks) {
  auto* root = sg4::create_star_zone("root");
  sg4::NetZone* rack = root;
  for (unsigned rank = 0; rank < count; rank++) {
    if (racks && rank % RACK == 0) {
      const auto name = "rack" + std::to_string(rank / RACK);
      rack = sg4::create_star_zone(name);
      rack->set_parent(root);
      auto* gateway = rack->create_router(name + "-switch");
      const auto* cable = root->create_split_duplex_link(name + "-uplink", UPLINK * GBIT)->set_latency(LATENCY)->seal();
      root->add_route(rack->get_netpoint(), nullptr, gateway, nullptr,
                      {{cable, sg4::LinkInRoute::Direction::UP}}, true);
    }
    const auto name = "host" + std::to_string(rank);
    auto* host = rack->create_host(name, 1e9);
    const auto* cable = rack->create_split_duplex_link(name + "-cable", GBIT)->set_latency(LATENCY)->seal();
    rack->add_route(host->get_netpoint(), nullptr, nullptr, nullptr, {{cable, sg4::LinkInRoute::Direction::UP}}, true);
    hosts.push_back(host);
    boxes.push_back(sg4::Mailbox::by_name(name));
    if (racks && (rank % RACK == RACK - 1 || rank + 1 == count))
      rack->seal();
  }
  root->seal();
}

sg4::CommPtr receive(unsigned rank) {
  static std::vector<int*> ignored(1);
  return boxes[rank]->get_async<int>(&ignored[0]);
}

sg4::CommPtr send(unsigned rank, uint64_t bytes) {
  messages++;
  return boxes[rank]->put_async(&token, bytes);
}

/// Pass blocks around a ring: `rounds` times, everybody sends to the right and receives from the left.
void ring(unsigned rank, unsigned count, unsigned rounds, uint64_t bytes) {
  const unsigned right = (rank + 1) % count;
  for (unsigned round = 0; round < rounds; round++) {
    auto in = receive(rank);
    auto out = send(right, bytes);
    in->wait();
    out->wait();
  }
}

/// Up a binomial tree to rank 0, and down again.
void tree(unsigned rank, unsigned count) {
  unsigned distance = 1;
  for (; distance < count && rank % (2 * distance) == 0; distance *= 2)
    if (rank + distance < count)
      receive(rank)->wait();
  if (rank) {
    send(rank - distance, BLOCK)->wait();
    receive(rank)->wait();
  }
  for (distance /= 2; distance; distance /= 2)
    if (rank + distance < count)
      send(rank + distance, BLOCK)->wait();
}

void server(unsigned count) {
  std::vector<sg4::CommPtr> pending;
  for (unsigned rank = 1; rank < count; rank++)
    pending.push_back(receive(0));
  sg4::Comm::wait_all(pending);
  pending.clear();
  for (unsigned rank = 1; rank < count; rank++)
    pending.push_back(send(rank, DENSE));
  sg4::Comm::wait_all(pending);
}

void client(unsigned rank) {
  auto answer = receive(rank);
  send(0, BLOCK)->wait();
  answer->wait();
}

/// One host's flows, each from its own start on.
void traffic(unsigned rank, std::vector<unsigned> mine) {
  std::vector<sg4::CommPtr> pending;
  for (unsigned number : mine) {
    const auto& flow = flows[number];
    if (flow.start > sg4::Engine::get_clock())
      sg4::this_actor::sleep_until(flow.start);
    pending.push_back(sg4::Comm::sendto_async(hosts[flow.src], hosts[flow.dst], flow.bytes));
    messages++;
  }
  sg4::Comm::wait_all(pending);
  for (size_t i = 0; i < mine.size(); i++)
    flows[mine[i]].finish = pending[i]->get_finish_time();
}

int main(int argc, char** argv) {
  sg4::Engine engine(&argc, argv);
  if (argc < 3) {
    std::fprintf(stderr, "usage: flows w1|w2|w3|w4|w5 P [TRAFFIC]\n");
    return 2;
  }
  sg4::Engine::set_config("network/model:CM02");
  sg4::Engine::set_config("network/crosstraffic:0");
  sg4::Engine::set_config("network/TCP-gamma:0");
  sg4::Engine::set_config("network/loopback-lat:0");
  sg4::Engine::set_config("maxmin/precision:1e-12");
  sg4::Engine::set_config("surf/precision:1e-12");
  sg4::Engine::set_config("contexts/factory:raw");
  const std::string work = argv[1];
  const unsigned count = std::strtoul(argv[2], nullptr, 10);
  build(count, work == "w5");
  std::vector<std::vector<unsigned>> of_host(count);
  if (work == "w5") {
    std::ifstream file(argv[3]);
    for (Flow flow; file >> flow.src >> flow.dst >> flow.bytes >> flow.start;)
      flows.push_back(flow);
    for (unsigned number = 0; number < flows.size(); number++)
      of_host[flows[number].src].push_back(number);
  }
  for (unsigned rank = 0; rank < count; rank++) {
    if (work == "w1")
      sg4::Actor::create("w", hosts[rank], ring, rank, count, 2 * (count - 1), DENSE / count / 4 * 4);
    else if (work == "w2")
      sg4::Actor::create("w", hosts[rank], tree, rank, count);
    else if (work == "w3")
      sg4::Actor::create("w", hosts[rank], ring, rank, count, count - 1, BLOCK);
    else if (work == "w4" && rank == 0)
      sg4::Actor::create("w", hosts[rank], server, count);
    else if (work == "w4")
      sg4::Actor::create("w", hosts[rank], client, rank);
    else if (!of_host[rank].empty()) {
      auto& mine = of_host[rank];
      std::stable_sort(mine.begin(), mine.end(), [](auto a, auto b) { return flows[a].start < flows[b].start; });
      sg4::Actor::create("w", hosts[rank], traffic, rank, mine);
    }
  }
  const auto began = std::chrono::steady_clock::now();
  const auto clock = std::clock();
  engine.run();
  const double cpu = double(std::clock() - clock) / CLOCKS_PER_SEC;
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  std::printf("{\"loop_s\": %.9f, \"loop_cpu_s\": %.9f, \"messages\": %lu, \"end_s\": %.15g, \"finish_s\": [", took.count(),
              cpu, messages, sg4::Engine::get_clock());
  for (size_t i = 0; i < flows.size(); i++)
    std::printf("%s%.15g", i ? ", " : "", flows[i].finish);
  std::printf("]}\n");
  return 0;
}
