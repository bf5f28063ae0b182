"""The descriptor pool of Stageline's own messages (scripts/gen_proto.py says why)."""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
