/* Starts each program of its arguments and waits for it: what any runner of hooks has to do at least. */

#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

extern char **environ;

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char *arguments[] = {argv[i], NULL};
        pid_t pid;
        int status;
        int error = posix_spawn(&pid, argv[i], NULL, NULL, arguments, environ);

        if (error) {
            fprintf(stderr, "%s: %s\n", argv[i], strerror(error));
            return 1;
        }
        if (waitpid(pid, &status, 0) != pid || status) {
            fprintf(stderr, "%s: failed\n", argv[i]);
            return 1;
        }
    }
    return 0;
}
