//! Assembly and supervision: build binds every socket, run supervises every task, stop drains.
