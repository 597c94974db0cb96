"""What a corpus takes on disk, as token shards and as a memory bank."""

from dataclasses import dataclass

from cm3leon.errors import ConfigError
from cm3leon.retrieval.vector_index import LINKS, IndexChoice, choose_index

RECORD_BYTES = 40  # key and group of a record, and where its parts begin
SEGMENT_BYTES = 17  # kind of a segment, and where its ids begin
WORD_BYTES = 140  # caption, key, source, licence, author; the shipped bank's mean
INDEX_MEMORY = 64 << 30  # bytes that the bank's index may take once it is open


def index_bytes(choice: IndexChoice, count: int, width: int) -> int:
    """Of the file of an index over `count` vectors."""
    if choice.kind == "flat":
        return 0
    if choice.kind == "hnsw":
        return count * (8 * LINKS + 18)  # links, offset and level; no vectors
    centroids = choice.lists + 256  # of the lists and of PQ's bytes
    return count * (choice.bytes_per_vector + 8) + 4 * width * centroids


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Captioned pictures. Defaults: Yu et al. 2023, §2.1 and Table 1."""

    documents: int = 340_000_000
    codes: int = 1024  # of a picture
    versions: int = 1  # of a picture in a record: as it is, mirrored, moved
    text_ids: int = 9  # of a caption: 3 billion over 340 million
    neighbours: int = 4  # that lie with a record
    vector: int = 512  # width, CLIP ViT-B/32

    def __post_init__(self) -> None:
        for name in ("documents", "codes", "versions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, below 1")

    @property
    def shards(self) -> int:
        """Bytes of the token shards: four an id, and four where a version begins.

        One caption, and of a neighbour one version.
        """
        document = 4 * (self.codes + self.text_ids) + 2 * SEGMENT_BYTES
        more = 4 * (self.versions - 1) * (self.codes + 1)
        record = RECORD_BYTES + (1 + self.neighbours) * document + more
        return self.documents * record

    def bank(self) -> tuple[int, str]:
        """Bytes of the memory bank, and the words of FAISS for its index.

        Raises:
            ConfigError: no index fits `INDEX_MEMORY`.
        """
        choice = choose_index(self.documents, self.vector, INDEX_MEMORY)
        document = 2 * self.codes + WORD_BYTES + 2 * self.vector
        index = index_bytes(choice, self.documents, self.vector)
        return self.documents * document + index, choice.factory
