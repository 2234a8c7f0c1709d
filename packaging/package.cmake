# The files of the Debian package, and the settings with which cpack builds it (scripts/package).
set(package_dir ${CMAKE_BINARY_DIR}/packaging)
file(MAKE_DIRECTORY ${package_dir})
set(package_files ${package_dir}/longhold.1.gz ${package_dir}/longhold.bash ${package_dir}/_longhold ${package_dir}/longhold.fish ${package_dir}/config.toml)
add_custom_command(OUTPUT ${package_files}
  COMMAND longhold man | gzip -9n > ${package_dir}/longhold.1.gz
  COMMAND longhold completion bash > ${package_dir}/longhold.bash
  COMMAND longhold completion zsh > ${package_dir}/_longhold
  COMMAND longhold completion fish > ${package_dir}/longhold.fish
  COMMAND longhold config sample > ${package_dir}/config.toml
  DEPENDS longhold COMMENT "manual page, completions and config sample" VERBATIM)
add_custom_target(package_files DEPENDS ${package_files})

install(TARGETS longhold RUNTIME DESTINATION bin)
install(FILES ${package_dir}/longhold.1.gz DESTINATION share/man/man1)
install(FILES ${package_dir}/longhold.bash DESTINATION share/bash-completion/completions RENAME longhold)
install(FILES ${package_dir}/_longhold DESTINATION share/zsh/vendor-completions)
install(FILES ${package_dir}/longhold.fish DESTINATION share/fish/vendor_completions.d)
install(FILES ${package_dir}/config.toml DESTINATION /etc/longhold)
install(FILES ${CMAKE_CURRENT_LIST_DIR}/longhold.service DESTINATION lib/systemd/system)
install(FILES README.md CHANGELOG.md DESTINATION share/doc/longhold)
install(FILES LICENSE SECURITY.md DESTINATION share/doc/longhold)
install(FILES NOTICE DESTINATION share/doc/longhold RENAME copyright)  # the place where Debian expects licences
install(FILES docs/api.md docs/openapi.json docs/security.md DESTINATION share/doc/longhold/docs)
install(DIRECTORY docs/monitoring DESTINATION share/doc/longhold/docs)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME longhold)
set(CPACK_PACKAGE_CONTACT "the longhold developers")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "long-context memory engine: a small model reads a text once and answers from it")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "python3-pip, libopenblas0-serial")  # 'model get' downloads weights with pip; the reference BLAS is slow
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA "${CMAKE_CURRENT_LIST_DIR}/conffiles;${CMAKE_CURRENT_LIST_DIR}/postinst;${CMAKE_CURRENT_LIST_DIR}/prerm")
include(CPack)
