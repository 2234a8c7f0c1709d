#include "service/wire/sidecars.h"

#include <algorithm>

namespace longhold::wire {

// Several sidecars use one embedder, each from a thread of its own.
class Sidecars::SharedEmbedder final : public TextEmbedder {
 public:
  explicit SharedEmbedder(TextEmbedder* embedder) : embedder_(embedder) {}
  uint32_t dim() const override { return embedder_->dim(); }
  uint64_t fingerprint() const override { return embedder_->fingerprint(); }
  Result<std::vector<float>> EmbedParts(std::span<const TextParts> texts) override {
    const std::lock_guard lock(mutex_);
    return embedder_->EmbedParts(texts);
  }
  uint64_t cut_count() const override {
    const std::lock_guard lock(mutex_);
    return embedder_->cut_count();
  }
  uint64_t token_count() const override {
    const std::lock_guard lock(mutex_);
    return embedder_->token_count();
  }

 private:
  TextEmbedder* const embedder_;
  mutable std::mutex mutex_;
};

// A sidecar, or the place where one thread opens it while others wait for it.
struct Sidecars::Slot {
  std::list<Key>::iterator used;  // with the lock of Sidecars
  std::mutex mutex;               // of what follows
  MemoryReservation memory;
  std::shared_ptr<Sidecar> sidecar;
  // Nobody waits for it or uses it. With the lock of Sidecars, by which alone pointers to a slot
  // are taken and given up: so the answer stays true, and what others wrote is visible.
  static bool Idle(const std::shared_ptr<Slot>& slot) {
    return slot.use_count() == 1 && slot->sidecar.use_count() <= 1;
  }
};

Sidecars::Sidecars(const SidecarsOptions& options)
    : options_(options),
      embedder_(options.embedder == nullptr ? nullptr
                                            : std::make_unique<SharedEmbedder>(options.embedder)) {}
Sidecars::~Sidecars() = default;

void Sidecars::ForgetOldest(const std::string* tenant) {
  const auto oldest = std::find_if(models_used_.begin(), models_used_.end(), [&](const Key& key) {
    return tenant == nullptr || key.first == *tenant;
  });
  LH_CHECK(oldest != models_used_.end());
  const auto found = models_.find(*oldest);
  models_bytes_ -= found->second.message->size();
  models_.erase(found);
  models_used_.erase(oldest);
}

Status Sidecars::Describe(const std::string& tenant, const DescribeModelRequest& model) {
  LH_RETURN_IF_ERROR(model.model.Check());
  if (!model.codec.empty() && !IsCodecName(model.codec))
    return InvalidArgument("codec " + model.codec + " is unknown; the codecs are " + CodecList());
  // Encoded anew: a client may write the same description in several ways.
  auto message = std::make_shared<const std::string>(Encode(model));
  const Key key{tenant, model.model.fingerprint};
  std::list<std::shared_ptr<Slot>> closing;
  const std::lock_guard lock(mutex_);
  if (const auto known = models_.find(key); known != models_.end()) {
    models_used_.splice(models_used_.end(), models_used_, known->second.used);
    if (*known->second.message == *message) return OkStatus();
    const auto open = slots_.find(key);
    if (open != slots_.end() && !Slot::Idle(open->second)) {
      return AlreadyExists("model " + model.model.name + ": fingerprint " +
                           model.model.fingerprint +
                           " was described otherwise, and is in use; a model that differs needs "
                           "another fingerprint");
    }
    if (open != slots_.end()) {
      slots_used_.erase(open->second->used);
      closing.push_back(std::move(open->second));
      slots_.erase(open);
    }
    models_bytes_ -= known->second.message->size();
    models_used_.erase(known->second.used);
    models_.erase(known);
  }
  if (message->size() > options_.models_bytes_max)
    return ResourceExhausted("the description is too long");
  const auto own =
      static_cast<size_t>(std::count_if(models_.begin(), models_.end(), [&](const auto& entry) {
        return entry.first.first == tenant;
      }));
  if (own >= options_.tenant_models_max) ForgetOldest(&tenant);
  while (models_.size() >= options_.models_max ||
         models_bytes_ + message->size() > options_.models_bytes_max)
    ForgetOldest(nullptr);
  models_bytes_ += message->size();
  models_[key] = {std::move(message), models_used_.insert(models_used_.end(), key)};
  return OkStatus();
}

bool Sidecars::CloseIdle(const std::string* tenant, std::list<std::shared_ptr<Slot>>* closing) {
  for (auto oldest = slots_used_.begin(); oldest != slots_used_.end(); ++oldest) {
    if (tenant != nullptr && oldest->first != *tenant) continue;
    const auto found = slots_.find(*oldest);
    if (!Slot::Idle(found->second)) continue;
    closing->push_back(std::move(found->second));
    slots_.erase(found);
    slots_used_.erase(oldest);
    return true;
  }
  return false;
}

Result<std::shared_ptr<Sidecars::Slot>> Sidecars::SlotOf(
    const Key& key, std::list<std::shared_ptr<Slot>>* closing) {
  if (const auto found = slots_.find(key); found != slots_.end()) {
    slots_used_.splice(slots_used_.end(), slots_used_, found->second->used);
    return found->second;
  }
  const auto own =
      static_cast<size_t>(std::count_if(slots_.begin(), slots_.end(), [&](const auto& entry) {
        return entry.first.first == key.first;
      }));
  const bool tenant_full = own >= options_.tenant_sidecars_max;
  if ((tenant_full || slots_.size() >= options_.sidecars_max) &&
      !CloseIdle(tenant_full ? &key.first : nullptr, closing)) {
    return ResourceExhausted(
        "as many models are in use as the server serves at once; retry later, or finish what is "
        "being put");
  }
  auto slot = std::make_shared<Slot>();
  slot->used = slots_used_.insert(slots_used_.end(), key);
  slots_[key] = slot;
  return slot;
}

Status Sidecars::OpenSlot(const Key& key, const std::string& message, Slot* slot) {
  if (options_.budget != nullptr) {
    const auto reserve = [&] {
      return options_.budget->Reserve(options_.sidecar_bytes, "model " + key.second);
    };
    Result<MemoryReservation> memory = reserve();
    for (bool more = true; !memory.ok() && more;) {
      std::list<std::shared_ptr<Slot>> closing;
      {
        const std::lock_guard lock(mutex_);
        more = CloseIdle(nullptr, &closing);
      }
      closing.clear();
      if (more) memory = reserve();
    }
    if (!memory.ok()) return memory.status();
    slot->memory = std::move(*memory);
  }
  LH_ASSIGN_OR_RETURN(DescribeModelRequest model, DecodeAs<DescribeModelRequest>(message));
  SidecarOptions options{.memory_budget_bytes = options_.sidecar_bytes,
                         .encryption_key = options_.encryption_key,
                         .heads = std::move(model.recall_heads)};
  if (!model.codec.empty()) options.codec = model.codec;
  LH_ASSIGN_OR_RETURN(slot->sidecar, Sidecar::Open(options_.stores, std::move(model.model),
                                                   embedder_.get(), std::move(options)));
  return OkStatus();
}

Result<Sidecars::Lease> Sidecars::Open(const std::string& tenant, const std::string& fingerprint) {
  const Key key{tenant, fingerprint};
  std::list<std::shared_ptr<Slot>> closing;
  std::shared_ptr<Slot> slot;
  std::shared_ptr<const std::string> message;
  {
    const std::lock_guard lock(mutex_);
    const auto known = models_.find(key);
    if (known == models_.end())
      return NotFound("model " + fingerprint + ": the server has no description; send it");
    models_used_.splice(models_used_.end(), models_used_, known->second.used);
    LH_ASSIGN_OR_RETURN(slot, SlotOf(key, &closing));
    message = known->second.message;
  }
  closing.clear();
  Status opened;
  Lease lease;
  {
    const std::lock_guard lock(slot->mutex);
    if (slot->sidecar == nullptr) opened = OpenSlot(key, *message, slot.get());
    if (!opened.ok()) slot->memory.Release();
    lease = slot->sidecar;
  }
  // The pointer to the slot ends with the lock: see Slot::Idle.
  const std::lock_guard lock(mutex_);
  const auto found = slots_.find(key);
  const bool last = slot.use_count() == 2;  // nobody else waits for it
  if (!opened.ok() && last && found != slots_.end() && found->second == slot) {
    slots_used_.erase(slot->used);
    slots_.erase(found);
  }
  slot.reset();
  if (!opened.ok()) return opened;
  return lease;
}

}  // namespace longhold::wire
