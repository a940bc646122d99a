"""Column and file names of a prepared domain, in one place."""

USER_ID = "user_id"  # string: the raw user id
ITEM_ID = "item_id"  # string: the raw item id
ITEM_IDS = "item_ids"  # list<int32>: catalogue indices, oldest first (1-based; 0 is padding)
TIMESTAMP = "timestamp"  # int64: seconds since 1970
TIMESTAMPS = "timestamps"  # list<int64>: aligned with item_ids; only where the source has times
RATING = "rating"  # float32: stars, or how often; only in a raw log whose source has them
TEXT = "text"  # string: what an item encoder reads
NEGATIVES = "negatives"  # list<int32>: sampled candidates the user never touched
LABELS = "labels"  # int: the target of a row that is evaluated, where it stands apart from item_ids
DOMAIN = "domain"  # string: name of the domain that a row of a mixture comes from
PIVOTAL = "pivotal"  # list<bool>: aligned with item_ids; synthetic worlds only

PADDING_INDEX = 0

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)

INTERACTIONS_DIR = "interactions"  # interactions/{train,validation,test}.parquet
NEGATIVES_DIR = "negatives"  # negatives/{validation,test}.parquet
PIVOTAL_DIR = "pivotal"  # pivotal/{train,validation,test}.parquet, synthetic worlds only
DOMAIN_FILE = "domain.json"
