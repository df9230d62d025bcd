# How the engine takes bytes from a socket.

cdef extern from *:
    """
    #include <sys/socket.h>
    #include <sys/uio.h>
    /* How many bytes must be there before the socket counts as readable. */
    static inline void set_wake_bytes(int fd, size_t bytes) {
        int low = (int)bytes; setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low); }
    /* n bytes, and at most two of the line end that nobody needs. */
    static inline ssize_t recv_line(int fd, void *data, size_t n, size_t end) {
        char ignored[2];
        struct iovec parts[2] = {{data, n}, {ignored, end}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        return recvmsg(fd, &message, MSG_DONTWAIT); }
    """
    ssize_t recv(int fd, void* data, size_t n, int flags) nogil
    int MSG_DONTWAIT
    void set_wake_bytes(int fd, size_t bytes) nogil
    ssize_t recv_line(int fd, void* data, size_t n, size_t end) nogil
