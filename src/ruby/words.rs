//! The words of Active Record and of the libraries around it, by what they do to a database.

/// Methods of a model or relation that write rows.
pub const WRITES: [&str; 40] = [
    "update_all",
    "delete_all",
    "destroy_all",
    "update",
    "update!",
    "update_column",
    "update_columns",
    "update_attribute",
    "update_attributes",
    "update_attributes!",
    "save",
    "save!",
    "create",
    "create!",
    "insert",
    "insert!",
    "insert_all",
    "insert_all!",
    "upsert",
    "upsert_all",
    "destroy",
    "destroy!",
    "delete",
    "delete_by",
    "destroy_by",
    "touch",
    "touch_all",
    "toggle!",
    "increment!",
    "decrement!",
    "increment_counter",
    "decrement_counter",
    "update_counters",
    "reset_counters",
    "find_or_create_by",
    "find_or_create_by!",
    "first_or_create",
    "first_or_create!",
    "import",
    "import!",
];

/// Among them those that change every row with one statement.
pub const AT_ONCE: [&str; 3] = ["update_all", "delete_all", "touch_all"];

/// Methods of a model that read, or begin a relation.
pub const READS: [&str; 58] = [
    "all",
    "where",
    "find_each",
    "find_in_batches",
    "in_batches",
    "each_batch",
    "unscoped",
    "unscope",
    "order",
    "reorder",
    "limit",
    "offset",
    "pluck",
    "pick",
    "select",
    "joins",
    "left_joins",
    "left_outer_joins",
    "includes",
    "preload",
    "eager_load",
    "references",
    "group",
    "having",
    "distinct",
    "from",
    "with",
    "not",
    "count",
    "sum",
    "maximum",
    "minimum",
    "average",
    "first",
    "last",
    "take",
    "find",
    "find_by",
    "find_by!",
    "find_by_sql",
    "first!",
    "last!",
    "ids",
    "new",
    "transaction",
    "table_name",
    "table_name=",
    "quoted_table_name",
    "column_names",
    "columns",
    "columns_hash",
    "primary_key",
    "reset_column_information",
    "name",
    "arel_table",
    "lock",
    "inheritance_column=",
    "default_scoped",
];

/// Methods without a receiver that do nothing to the schema.
pub const HARMLESS: [&str; 45] = [
    "class",
    "quoted_date",
    "say",
    "puts",
    "p",
    "pp",
    "print",
    "warn",
    "require",
    "require_relative",
    "include",
    "extend",
    "private",
    "protected",
    "public",
    "attr_accessor",
    "attr_reader",
    "sleep",
    "quote",
    "quote_table_name",
    "quote_column_name",
    "select_all",
    "select_one",
    "select_value",
    "select_values",
    "select_rows",
    "disable_ddl_transaction!",
    "disable_lock_timeout!",
    "raise",
    "exit",
    "binding",
    "logger",
    "format",
    "sprintf",
    "rand",
    "block_given?",
    "milestone",
    "restrict_gitlab_migration",
    "set_schema",
    "announce",
    "write",
    "set_lock_timeout",
    "set_statement_timeout",
    "reset_column_information",
    "schema_cache",
];

/// Methods that run their block, and nothing else that matters here.
pub const WRAPPERS: [&str; 23] = [
    "say_with_time",
    "suppress_messages",
    "transaction",
    "with_lock_retries",
    "disable_statement_timeout",
    "up_only",
    "loop",
    "tap",
    "then",
    "with_options",
    "unprepared_statement",
    "without_statement_timeout",
    "with_connection",
    "benchmark",
    "no_touching",
    "uncached",
    "ddl_transaction",
    "with_lock_timeout",
    "with_statement_timeout",
    "without_lock_timeout",
    "disable_lock_timeout",
    "disable_ddl_lock_timeout",
    "without_timeout",
];

/// Methods that run their block in a transaction.
pub const TRANSACTIONS: [&str; 3] = ["transaction", "ddl_transaction", "with_lock_retries"];

/// Methods that give the rows of a table in pieces.
pub const BATCHES: [&str; 4] = ["in_batches", "find_in_batches", "each_batch", "find_each"];

/// Methods that run a text as Ruby.
pub const EVALS: [&str; 4] = ["eval", "instance_eval", "class_eval", "module_eval"];

/// Methods of an object of which only its file knows what they do.
pub const RUNS: [&str; 10] =
    ["call", "run", "perform", "perform_now", "execute", "up", "down", "change", "migrate", "exec_migration"];

/// What the database has.
pub const LISTS: [&str; 8] =
    ["tables", "data_sources", "views", "columns", "indexes", "foreign_keys", "check_constraints", "extensions"];

/// Constants whose methods do not touch a database.
pub const PURE: [&str; 37] = [
    "STDOUT",
    "STDERR",
    "Thread",
    "Rails",
    "ENV",
    "Time",
    "Date",
    "DateTime",
    "SecureRandom",
    "File",
    "Digest",
    "JSON",
    "YAML",
    "Logger",
    "Kernel",
    "Benchmark",
    "Hash",
    "Array",
    "Set",
    "String",
    "Integer",
    "Process",
    "GC",
    "ActiveSupport",
    "I18n",
    "BigDecimal",
    "URI",
    "Struct",
    "OpenStruct",
    "CSV",
    "Random",
    "Math",
    "Arel",
    "Dir",
    "IO",
    "Gem",
    "Etc",
];

/// Whether a method's first argument is SQL that may change something.
pub fn sql_method(method: &str) -> bool {
    matches!(
        method,
        "execute"
            | "exec_query"
            | "exec_update"
            | "exec_delete"
            | "exec_insert"
            | "update"
            | "delete"
            | "insert"
            | "execute_batch"
            | "select_value_and_update"
            | "update_sql"
            | "insert_sql"
            | "delete_sql"
    )
}
